import type { NetworkNotice, NetworkStore } from './store/network-store.js';

/**
 * Changes for one watcher, in the order of revisions: coalesced per network while the watcher is slow, so that it never
 * holds more than one entry per network.
 */
export class NetworkChanges {
  readonly #pending = new Map<string, { revision: bigint; isRemoved: boolean }>();
  readonly #unsubscribe: () => void;
  #wake: (() => void) | undefined;

  constructor(store: NetworkStore) {
    this.#unsubscribe = store.onChange((notice) => this.#take(notice));
  }

  /** Changes until `signal` fires. An entry that changed again meanwhile comes once, with the newest revision. */
  async *read(signal: AbortSignal): AsyncGenerator<{ id: string; revision: bigint; isRemoved: boolean }> {
    const wake = (): void => this.#wake?.();
    signal.addEventListener('abort', wake);
    try {
      while (!signal.aborted) {
        const [next] = this.#pending;
        if (next === undefined) {
          await new Promise<void>((resolve) => (this.#wake = resolve));
          continue;
        }
        const [id, change] = next;
        this.#pending.delete(id);
        yield { id, ...change };
      }
    } finally {
      signal.removeEventListener('abort', wake);
      this.close();
    }
  }

  close(): void {
    this.#unsubscribe();
  }

  #take({ revision, changed, removed }: NetworkNotice): void {
    const set = (id: string, isRemoved: boolean): void => {
      this.#pending.delete(id); // to the end: revisions go up
      this.#pending.set(id, { revision, isRemoved });
    };
    for (const id of changed) set(id, false);
    for (const id of removed) set(id, true);
    this.#wake?.();
  }
}
