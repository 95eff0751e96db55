/** One step of a watch: what is now true of an object, up to a revision. */
export interface ImageChange<T> {
  readonly revision: bigint;
  readonly id: string;
  /** undefined: it is gone. */
  readonly value: T | undefined;
}

/**
 * Changes for one reader. Several of one object are folded into the newest, so a slow reader costs at most one entry
 * per object. Of changes that share a revision only the last carries it: whoever has seen it has seen them all.
 */
export class ChangeFeed<T> {
  #pending = new Map<string, T | undefined>();
  #pendingRevision: bigint;
  #sentRevision: bigint;
  #wake: (() => void) | undefined;

  constructor(revision: bigint) {
    this.#pendingRevision = revision;
    this.#sentRevision = revision;
  }

  push(revision: bigint, changes: ReadonlyMap<string, T | undefined>): void {
    for (const [id, value] of changes) {
      this.#pending.delete(id);
      this.#pending.set(id, value);
    }
    this.#pendingRevision = revision;
    this.#wake?.();
  }

  /** Ends when the signal fires. */
  async *read(signal: AbortSignal): AsyncGenerator<ImageChange<T>> {
    const onAbort = (): void => this.#wake?.();
    signal.addEventListener('abort', onAbort, { once: true });
    try {
      while (!signal.aborted) {
        const batch = [...this.#pending];
        const revision = this.#pendingRevision;
        this.#pending = new Map();
        for (const [at, [id, value]] of batch.entries()) {
          yield { revision: at === batch.length - 1 ? revision : this.#sentRevision, id, value };
        }
        this.#sentRevision = revision;
        if (this.#pending.size > 0) continue;
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
          if (signal.aborted) resolve();
        });
      }
    } finally {
      signal.removeEventListener('abort', onAbort);
    }
  }
}
