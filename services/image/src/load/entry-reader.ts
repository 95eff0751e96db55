/** A file of an archive as it comes: its beginning can be looked at, and readers one after another share what is left. */
export class EntryReader {
  readonly #iterator: AsyncIterator<Buffer>;
  readonly #peeked: Buffer[] = [];
  #last: Promise<unknown> = Promise.resolve();

  constructor(source: AsyncIterable<Buffer>) {
    this.#iterator = source[Symbol.asyncIterator]();
  }

  /** At least `length` bytes, if there are so many; `chunks` brings them again. */
  async peek(length: number): Promise<Buffer> {
    let held = 0;
    while (held < length) {
      const next = await this.#iterator.next();
      if (next.done === true) break;
      this.#peeked.push(next.value);
      held += next.value.length;
    }
    if (this.#peeked.length > 1) this.#peeked.splice(0, this.#peeked.length, Buffer.concat(this.#peeked));
    return this.#peeked[0] ?? Buffer.alloc(0);
  }

  /** What nobody has read yet. Leaving the loop early leaves the rest for the next reader. */
  async *chunks(): AsyncGenerator<Buffer> {
    for (;;) {
      const next = await this.#next();
      if (next === undefined) return;
      yield next;
    }
  }

  /** Reads away what is left: an archive goes on only when its file has been read. */
  async drain(): Promise<void> {
    while ((await this.#next()) !== undefined);
  }

  /** One at a time: a reader that left may still be waiting for a chunk. */
  async #next(): Promise<Buffer | undefined> {
    const next = this.#last.then(async () => {
      const held = this.#peeked.shift();
      if (held !== undefined) return held;
      const result = await this.#iterator.next();
      return result.done === true ? undefined : result.value;
    });
    this.#last = next.catch(() => undefined);
    return next;
  }
}
