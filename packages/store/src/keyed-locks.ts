/** Locks by name, inside one process: first come, first served per key. Keys in use cost memory, others none. */
export class KeyedLocks {
  readonly #tails = new Map<string, Promise<void>>();

  /**
   * Run `fn` while holding the key, or all of several keys. Several are taken in sorted order, so that two callers never wait for each other.
   * Not re-entrant: asking inside `fn` for a key it holds waits for ever.
   *
   * @param signal ends the waiting, not `fn`; its reason is thrown.
   */
  async run<T>(key: string | readonly string[], fn: () => Promise<T> | T, signal?: AbortSignal): Promise<T> {
    const keys = typeof key === 'string' ? [key] : [...new Set(key)].sort();
    const releases: (() => void)[] = [];
    try {
      for (const one of keys) releases.push(await this.#acquire(one, signal));
      return await fn();
    } finally {
      for (const release of releases.reverse()) release();
    }
  }

  /** Whether anyone holds or waits for the key. */
  isHeld(key: string): boolean {
    return this.#tails.has(key);
  }

  async #acquire(key: string, signal: AbortSignal | undefined): Promise<() => void> {
    const before = this.#tails.get(key);
    let free = () => {};
    const tail = new Promise<void>((resolve) => {
      free = resolve;
    });
    this.#tails.set(key, tail);
    const release = () => {
      if (this.#tails.get(key) === tail) this.#tails.delete(key);
      free();
    };
    try {
      await unlessAborted(before, signal);
    } catch (error) {
      // Whoever comes later waits for those before as well.
      void before?.then(release);
      throw error;
    }
    return release;
  }
}

async function unlessAborted(before: Promise<void> | undefined, signal: AbortSignal | undefined): Promise<void> {
  if (before === undefined || signal === undefined) return before;
  signal.throwIfAborted();
  let stop = () => {};
  const aborted = new Promise<void>((_, reject) => {
    // The reason is whatever the caller gave.
    // eslint-disable-next-line @typescript-eslint/prefer-promise-reject-errors
    stop = () => reject(signal.reason);
    signal.addEventListener('abort', stop);
  });
  try {
    await Promise.race([before, aborted]);
  } finally {
    signal.removeEventListener('abort', stop);
  }
}
