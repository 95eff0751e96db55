import { decompressed, isCompressed } from '@flotilla/layer-tar';
import type { ArrivingPart } from '../layers/index.js';

/** The bytes of an upload. Those in a FIFO may also be read from its descriptor, by somebody else, while nobody iterates. */
export interface UploadData extends AsyncIterable<Buffer> {
  readonly direct?: {
    /** Does not block; stays the upload's. */
    readonly fd: number;
    /** Somebody else has read that many. */
    took(bytes: number): void;
  };
}

const magicBytes = 4;

/** The plain bytes of an upload that may be compressed, whatever it was called; reading them throws as `decompressed`. */
export async function openArchive(data: UploadData): Promise<ArchiveSource> {
  const source = new ArchiveSource(data);
  return isCompressed(await source.peek(magicBytes)) ? new ArchiveSource(decompressed(source.take())) : source;
}

/** The bytes of an archive as they come: looked at, taken in pieces, or lent to a thread that reads them itself. */
export class ArchiveSource {
  readonly #iterator: AsyncIterator<Buffer>;
  readonly #direct: UploadData['direct'];
  #held: Buffer = Buffer.alloc(0);
  #isOver = false;

  constructor(data: UploadData) {
    this.#iterator = data[Symbol.asyncIterator]();
    this.#direct = data.direct;
  }

  /** At least `length` bytes, if there are so many; they stay. */
  async peek(length: number): Promise<Buffer> {
    while (this.#held.length < length) {
      const next = await this.#iterator.next();
      this.#isOver = next.done === true;
      if (next.done === true) break;
      this.#held = this.#held.length === 0 ? next.value : Buffer.concat([this.#held, next.value]);
    }
    return this.#held;
  }

  /** The next `length` bytes, fewer at the end. Ends the source when the loop is left early. */
  async *take(length = Number.POSITIVE_INFINITY): AsyncGenerator<Buffer> {
    let isOver = false;
    try {
      for (let left = length; left > 0;) {
        if ((await this.peek(1)).length === 0) break;
        const chunk = this.#takeHeld(left);
        left -= chunk.length;
        yield chunk;
      }
      isOver = true;
    } finally {
      if (!isOver) await this.end();
    }
  }

  /** Whether `lend` works. Not after the end: the upload has then closed its descriptor, which may be another's by now. */
  get isDirect(): boolean {
    return this.#direct !== undefined && !this.#isOver;
  }

  /**
   * Leaves `length` bytes (Infinity: all), those after the next `skipped`, to `read`, which tells how many it has read; the
   * skipped ones must have been peeked at. undefined, and nothing is taken, unless `isDirect` or when `read` gives that.
   */
  async lend<T extends { readonly readBytes: number }>(
    skipped: number,
    length: number,
    read: (part: ArrivingPart) => Promise<T | undefined>,
  ): Promise<T | undefined> {
    if (this.#direct === undefined || !this.isDirect) return undefined;
    const head = this.#held.subarray(skipped, skipped + length);
    const result = await read({ head, fd: this.#direct.fd, length });
    if (result === undefined) return undefined;
    this.#held = this.#held.subarray(skipped + head.length);
    this.#direct.took(result.readBytes - head.length);
    return result;
  }

  /** Nobody wants the rest. */
  async end(): Promise<void> {
    await this.#iterator.return?.();
  }

  #takeHeld(limit: number): Buffer {
    const chunk = this.#held.subarray(0, Math.min(limit, this.#held.length));
    this.#held = this.#held.subarray(chunk.length);
    return chunk;
  }
}
