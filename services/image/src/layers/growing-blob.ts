/** The blob of a layer did not come, or not to its end: nothing is known of the layer itself. */
export class BlobUnfinished extends Error {
  override readonly name = 'BlobUnfinished';
}

/**
 * A blob that is being downloaded, for who reads it meanwhile. Whoever downloads it says how far it has come, and must
 * say how it ended.
 */
export class GrowingBlob {
  /** Where the blob lies once it is whole and verified; rejects with `BlobUnfinished`. */
  readonly finished: Promise<string>;
  #resolve!: (path: string) => void;
  #reject!: (error: BlobUnfinished) => void;
  readonly #size: number;
  readonly #listeners = new Set<() => void>();
  #path = '';
  #available = 0;
  #origin = '';
  #generation = 0;
  #isOver = false;

  /** `size`: of the whole blob; 0 if unknown. */
  constructor(size: number) {
    this.#size = size;
    this.finished = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    this.finished.catch(() => undefined); // nobody may be reading
  }

  /** File that holds the bytes so far. It is renamed in the end: what has it open goes on. */
  get path(): string {
    return this.#path;
  }

  /** The bytes that may be read. */
  get available(): number {
    return this.#available;
  }

  /** All bytes are there, verified or not. */
  get isWhole(): boolean {
    return this.#isOver || (this.#size > 0 && this.#available === this.#size);
  }

  /** Changes when the download began anew: what was read before is then worth nothing. */
  get generation(): number {
    return this.#generation;
  }

  /** More is there. `origin` names the run of the download: with another one the bytes begin anew. */
  advance(path: string, available: number, origin: string): void {
    if (this.#isOver) return;
    if (origin !== this.#origin) this.#generation += 1;
    this.#origin = origin;
    this.#path = path;
    this.#available = available;
    this.#tell();
  }

  /** It is whole, verified, and lies at `path`; it has `size` bytes. */
  finish(path: string, size: number): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#path = path;
    this.#available = size;
    this.#resolve(path);
    this.#tell();
  }

  fail(cause: unknown): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#generation += 1;
    this.#reject(new BlobUnfinished('the download of the blob did not end well', { cause }));
    this.#tell();
  }

  /** Calls `listener` at every change until the returned function is called. */
  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Resolves when at least `bytes` are there, or all, or when the download has ended in whatever way. */
  async hasBytes(bytes: number, signal: AbortSignal): Promise<void> {
    while (this.#available < bytes && !this.isWhole && !signal.aborted) {
      let forget = (): void => undefined;
      await new Promise<void>((resolve) => {
        const leave = this.onChange(resolve);
        signal.addEventListener('abort', () => resolve(), { once: true });
        forget = leave;
      });
      forget();
    }
  }

  #tell(): void {
    for (const listener of [...this.#listeners]) listener();
  }
}
