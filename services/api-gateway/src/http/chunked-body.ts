import { invalidArgument } from '@flotilla/errors';

/** A small request body in chunked transfer coding, on a connection whose HTTP parser is already gone. */
export class ChunkedBody {
  readonly #parts: Buffer[] = [];
  #pending = Buffer.alloc(0);
  #remaining = 0;
  #inTrailer = false;
  #length = 0;

  /** Bytes of the body so far. */
  get length(): number {
    return this.#length + this.#pending.length;
  }

  /**
   * Take what arrived.
   * @returns the bytes after the body once it is complete, else undefined
   * @throws EngineError `invalidArgument` for a malformed chunk
   */
  push(chunk: Buffer): Buffer | undefined {
    this.#pending = Buffer.concat([this.#pending, chunk]);
    for (;;) {
      if (this.#remaining > 0) {
        const part = this.#pending.subarray(0, this.#remaining);
        if (part.length === 0) return undefined;
        this.#parts.push(part);
        this.#length += part.length;
        this.#remaining -= part.length;
        this.#pending = this.#pending.subarray(part.length);
        continue;
      }
      const line = this.#takeLine();
      if (line === undefined) return undefined;
      if (this.#inTrailer) {
        if (line === '') return this.#pending;
        continue;
      }
      // The line end after a chunk's data.
      if (line === '') continue;
      const size = /^([0-9a-f]{1,8})\s*(?:;.*)?$/i.exec(line)?.[1];
      if (size === undefined) throw invalidArgument('malformed chunked encoding');
      this.#remaining = Number.parseInt(size, 16);
      if (this.#remaining === 0) this.#inTrailer = true;
    }
  }

  text(): string {
    return Buffer.concat(this.#parts).toString('utf8');
  }

  #takeLine(): string | undefined {
    const end = this.#pending.indexOf('\r\n');
    if (end < 0) return undefined;
    const line = this.#pending.toString('latin1', 0, end);
    this.#pending = this.#pending.subarray(end + 2);
    return line;
  }
}
