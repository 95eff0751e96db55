/** How many images, containers and running operations need each layer and blob. */
export class UseCounts {
  readonly #counts = new Map<string, number>();

  retain(keys: Iterable<string>): void {
    for (const key of keys) this.#counts.set(key, (this.#counts.get(key) ?? 0) + 1);
  }

  /** Gives the keys that nobody needs any more. */
  release(keys: Iterable<string>): string[] {
    const unused: string[] = [];
    for (const key of keys) {
      const left = (this.#counts.get(key) ?? 0) - 1;
      if (left > 0) this.#counts.set(key, left);
      else {
        this.#counts.delete(key);
        unused.push(key);
      }
    }
    return unused;
  }

  isUsed(key: string): boolean {
    return this.#counts.has(key);
  }

  keys(): Iterable<string> {
    return this.#counts.keys();
  }
}
