import { unavailable } from '@flotilla/errors';
import type { ContainerChange, ContainerStore } from '../store/container-store.js';

/** Beyond this many changes that a reader has not taken, it is sent away: a new snapshot is cheaper. */
const longestQueue = 100_000;

/** The changes of a store from now on, in order, for one reader at its own pace; ends with the signal. */
export class ChangeFeed {
  readonly #queue: ContainerChange[] = [];
  readonly #unsubscribe: () => void;
  #wake: () => void = () => undefined;
  #overflowed = false;

  constructor(store: ContainerStore) {
    this.#unsubscribe = store.onChange((change) => {
      if (this.#queue.length >= longestQueue) this.#overflowed = true;
      else this.#queue.push(change);
      this.#wake();
    });
  }

  /** @throws EngineError `unavailable` when the reader fell too far behind. */
  async *changes(signal: AbortSignal): AsyncGenerator<ContainerChange, void, undefined> {
    const onAbort = (): void => this.#wake();
    signal.addEventListener('abort', onAbort);
    try {
      while (!signal.aborted) {
        if (this.#overflowed) throw unavailable('the reader of container changes is too slow');
        const next = this.#queue.shift();
        if (next !== undefined) yield next;
        else await new Promise<void>((resolve) => (this.#wake = resolve));
      }
    } finally {
      signal.removeEventListener('abort', onAbort);
      this.#unsubscribe();
    }
  }
}
