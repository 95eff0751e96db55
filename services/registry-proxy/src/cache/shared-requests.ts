import { raceSignal } from '../race-signal.js';

/** Requests that several callers may make at once: sent once per key, answered to all, ended when the last one leaves. */
export class SharedRequests<R> {
  readonly #running = new Map<string, Shared<R>>();

  /** Join the request of the key, or make it with `run`. `signal` ends only this caller's wait. */
  async join(key: string, signal: AbortSignal | undefined, run: (signal: AbortSignal) => Promise<R>): Promise<R> {
    signal?.throwIfAborted();
    let shared = this.#running.get(key);
    if (shared === undefined) {
      const stop = new AbortController();
      const made: Shared<R> = { stop, waiting: 0, result: run(stop.signal) };
      const forget = (): void => {
        if (this.#running.get(key) === made) this.#running.delete(key);
      };
      made.result.then(forget, forget);
      // Nobody joins what nobody waits for any more.
      stop.signal.addEventListener('abort', forget);
      this.#running.set(key, made);
      shared = made;
    }
    shared.waiting += 1;
    try {
      return await raceSignal(shared.result, signal);
    } finally {
      shared.waiting -= 1;
      if (shared.waiting === 0) shared.stop.abort(new Error('nobody waits for the answer'));
    }
  }
}

interface Shared<R> {
  readonly stop: AbortController;
  readonly result: Promise<R>;
  waiting: number;
}
