/** Work that several callers may need at once: run once per key, told to all, ended when the last one gives up. */
export class SharedTasks<P, R> {
  readonly #running = new Map<string, SharedTask<P, R>>();

  /** Join the task of the key, or start it with `run`. `signal` ends only this caller's wait. */
  async join(
    key: string,
    report: (progress: P) => void,
    signal: AbortSignal,
    run: (report: (progress: P) => void, signal: AbortSignal) => Promise<R>,
  ): Promise<R> {
    for (;;) {
      signal.throwIfAborted();
      let task = this.#running.get(key);
      if (task === undefined) {
        const started = new SharedTask(run);
        task = started;
        this.#running.set(key, started);
        void started.ended.then(() => {
          if (this.#running.get(key) === started) this.#running.delete(key);
        });
      }
      if (!task.isGivenUp) return await task.join(report, signal);
      await task.ended;
    }
  }
}

class SharedTask<P, R> {
  /** Resolves, never rejects, when it is over in whatever way. */
  readonly ended: Promise<void>;
  readonly #result: Promise<R>;
  readonly #abort = new AbortController();
  readonly #reports = new Set<(progress: P) => void>();
  #last: { progress: P } | undefined;

  constructor(run: (report: (progress: P) => void, signal: AbortSignal) => Promise<R>) {
    this.#result = run((progress) => {
      this.#last = { progress };
      for (const report of this.#reports) report(progress);
    }, this.#abort.signal);
    this.ended = this.#result.then(
      () => undefined,
      () => undefined,
    );
  }

  get isGivenUp(): boolean {
    return this.#abort.signal.aborted;
  }

  async join(report: (progress: P) => void, signal: AbortSignal): Promise<R> {
    this.#reports.add(report);
    if (this.#last !== undefined) report(this.#last.progress);
    try {
      return await untilAborted(this.#result, signal);
    } finally {
      this.#reports.delete(report);
      if (this.#reports.size === 0) this.#abort.abort(new Error('nobody waits for it any more'));
    }
  }
}

/** The promise, or the signal's reason if that comes first. */
export function untilAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const onAbort = (): void => {
      reject(signal.reason instanceof Error ? signal.reason : new Error('aborted'));
    };
    if (signal.aborted) onAbort();
    signal.addEventListener('abort', onAbort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', onAbort));
  });
}
