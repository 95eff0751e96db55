/** Locks by name, inside one process: first come, first served per key. Keys in use cost memory, others none. */
export class KeyedLocks {
  readonly #tails = new Map<string, Promise<void>>();

  /**
   * Run `fn` while holding the key, or all of several keys. Several are taken in sorted order, so that two callers never wait for each other.
   * Not re-entrant: asking inside `fn` for a key it holds waits for ever.
   */
  async run<T>(key: string | readonly string[], fn: () => Promise<T> | T): Promise<T> {
    const keys = typeof key === 'string' ? [key] : [...new Set(key)].sort();
    const releases: (() => void)[] = [];
    try {
      for (const one of keys) releases.push(await this.#acquire(one));
      return await fn();
    } finally {
      for (const release of releases.reverse()) release();
    }
  }

  /** Whether anyone holds or waits for the key. */
  isHeld(key: string): boolean {
    return this.#tails.has(key);
  }

  async #acquire(key: string): Promise<() => void> {
    const before = this.#tails.get(key);
    let free = () => {};
    const tail = new Promise<void>((resolve) => {
      free = resolve;
    });
    this.#tails.set(key, tail);
    await before;
    return () => {
      if (this.#tails.get(key) === tail) this.#tails.delete(key);
      free();
    };
  }
}
