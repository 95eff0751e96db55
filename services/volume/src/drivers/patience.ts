/** Ticks in which a limit is told to have passed: it is exceeded by a tenth at most. */
const ticks = 10;

/** Ends when a number has not grown for a while, or when a signal fires. */
export class Patience implements Disposable {
  /** Never rejects. */
  readonly end: Promise<undefined>;
  readonly #stop: () => void;

  /** @param limitMs milliseconds without growth; they begin when the number is above zero: before that the thread is still being started */
  constructor(progress: Int32Array, limitMs: number, signal: AbortSignal | undefined) {
    let resolve: (value: undefined) => void = () => undefined;
    this.end = new Promise((done) => (resolve = done));
    const lose = (): void => resolve(undefined);
    let last = 0;
    let sinceMs = performance.now();
    const timer = setInterval(() => {
      const value = Atomics.load(progress, 0);
      const now = performance.now();
      if (value === 0 || value !== last) {
        last = value;
        sinceMs = now;
      } else if (now - sinceMs >= limitMs) lose();
    }, limitMs / ticks);
    timer.unref();
    if (signal?.aborted === true) lose();
    else signal?.addEventListener('abort', lose);
    this.#stop = () => {
      clearInterval(timer);
      signal?.removeEventListener('abort', lose);
    };
  }

  [Symbol.dispose](): void {
    this.#stop();
  }
}
