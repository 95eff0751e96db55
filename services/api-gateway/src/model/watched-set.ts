import { messageOf } from '@flotilla/errors';
import type { Logger } from '@flotilla/log';

/** One message of an owner's `Watch` stream. */
export interface WatchMessage<T> {
  readonly revision: bigint;
  readonly change?:
    | { readonly $case: 'upsert'; readonly value: T }
    | { readonly $case: 'removed'; readonly value: string }
    | { readonly $case: 'synced'; readonly value: unknown }
    | undefined;
}

/** How a kind of object is watched. */
export interface WatchSource<T> {
  /** For logs: the kind of object. */
  readonly kind: string;
  /** Open the owner's stream; it ends when the signal fires. */
  readonly watch: (signal: AbortSignal) => AsyncIterable<WatchMessage<T>>;
  readonly keyOf: (object: T) => string;
  readonly log: Logger;
}

const FIRST_RETRY_MS = 20;
const LAST_RETRY_MS = 100;

/** How long a reply waits at most for the model to hold what it changed. */
const CATCH_UP_MS = 2_000;

/**
 * All objects of one kind as their owner last told of them: the first half of the read model.
 *
 * Follows the owner's `Watch` stream for as long as it lives. While the stream is down, {@link isCurrent} is false and
 * the objects are those of before: readers then ask the owner. After a new snapshot, objects that it does not hold are gone.
 */
export class WatchedSet<T> {
  readonly #source: WatchSource<T>;
  readonly #abort = new AbortController();
  readonly #waiters = new Set<Waiter>();
  readonly #listeners = new Set<() => void>();
  #objects = new Map<string, T>();
  #revision = 0n;
  #generation = 0;
  #isCurrent = false;
  #running: Promise<void> | undefined;

  constructor(source: WatchSource<T>) {
    this.#source = source;
  }

  /** Whether the stream is up and its snapshot complete. */
  get isCurrent(): boolean {
    return this.#isCurrent;
  }

  /** Counts up with every change: what was made of an older generation may be stale. */
  get generation(): number {
    return this.#generation;
  }

  /** Objects by key, in the order in which the owner told of them. */
  get objects(): ReadonlyMap<string, T> {
    return this.#objects;
  }

  /** Be told after every change. */
  onChange(listener: () => void): void {
    this.#listeners.add(listener);
  }

  /** Begin to follow the owner. */
  start(): void {
    this.#running ??= this.#follow();
  }

  /**
   * Resolves when the model holds the owner's state of a revision, or when that takes too long: a reply is late rather
   * than lost. At once while the stream is down, because readers then ask the owner.
   */
  async reached(revision: bigint): Promise<void> {
    if (!this.#isCurrent || this.#revision >= revision) return;
    await new Promise<void>((resolve) => {
      const waiter: Waiter = { revision, wake: resolve };
      const timer = setTimeout(() => {
        this.#source.log.debug(
          { kind: this.#source.kind, revision: String(revision), reached: String(this.#revision) },
          'read model is behind',
        );
        this.#waiters.delete(waiter);
        resolve();
      }, CATCH_UP_MS);
      waiter.wake = () => {
        clearTimeout(timer);
        resolve();
      };
      this.#waiters.add(waiter);
    });
  }

  /** Resolves when the model shows something, or when that takes too long, or at once while the stream is down. */
  async shows(claim: (objects: ReadonlyMap<string, T>) => boolean): Promise<void> {
    const deadline = Date.now() + CATCH_UP_MS;
    while (this.#isCurrent && !claim(this.#objects) && Date.now() < deadline) await this.reached(this.#revision + 1n);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#abort.abort();
    await this.#running;
    this.#wake(true);
  }

  async #follow(): Promise<void> {
    const { log, kind } = this.#source;
    const { signal } = this.#abort;
    let delay = FIRST_RETRY_MS;
    while (!signal.aborted) {
      try {
        await this.#read(signal);
        log.debug({ kind }, 'watch stream ended');
        delay = FIRST_RETRY_MS;
      } catch (error) {
        if (!isAborted(signal)) log.debug({ kind, reason: messageOf(error) }, 'watch stream broke');
      }
      if (this.#isCurrent) delay = FIRST_RETRY_MS;
      this.#isCurrent = false;
      this.#wake(true);
      await pause(delay, signal);
      delay = Math.min(delay * 2, LAST_RETRY_MS);
    }
  }

  async #read(signal: AbortSignal): Promise<void> {
    let snapshot: Map<string, T> | undefined = new Map();
    for await (const { revision, change } of this.#source.watch(signal)) {
      switch (change?.$case) {
        case 'upsert':
          (snapshot ?? this.#objects).set(this.#source.keyOf(change.value), change.value);
          break;
        case 'removed':
          (snapshot ?? this.#objects).delete(change.value);
          break;
        case 'synced':
          if (snapshot !== undefined) this.#objects = snapshot;
          snapshot = undefined;
          this.#isCurrent = true;
          break;
        case undefined:
          break;
      }
      if (snapshot !== undefined) continue;
      if (revision > this.#revision || change?.$case === 'synced') this.#revision = revision;
      this.#generation++;
      this.#wake(false);
      for (const listener of this.#listeners) listener();
    }
  }

  #wake(all: boolean): void {
    for (const waiter of this.#waiters) {
      if (!all && waiter.revision > this.#revision) continue;
      this.#waiters.delete(waiter);
      waiter.wake();
    }
  }
}

interface Waiter {
  readonly revision: bigint;
  wake: () => void;
}

const isAborted = (signal: AbortSignal): boolean => signal.aborted;

const pause = (ms: number, signal: AbortSignal): Promise<void> =>
  new Promise((resolve) => {
    if (signal.aborted) {
      resolve();
      return;
    }
    const done = (): void => {
      clearTimeout(timer);
      signal.removeEventListener('abort', done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal.addEventListener('abort', done, { once: true });
  });
