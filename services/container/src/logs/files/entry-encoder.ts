import { LineClock } from './line-clock.js';

/** Longer lines are split into entries of this size, of which the last alone ends with a newline. Source: moby/moby daemon/logger/copier.go. */
export const MAX_ENTRY_BYTES = 16 * 1024;

/** A good size for an encoder's output. */
export const ENCODER_OUTPUT_BYTES = 640 * 1024;

/** 1 stdout, 2 stderr: stdcopy's numbers. */
export type OutputStream = 1 | 2;

/** Turns bytes of a stream into the entries of a log file, each of which ends with the file's only kind of newline. */
export abstract class EntryEncoder {
  /** Entries made so far are in `output[0, length)`. The caller takes them and sets `length` to 0. */
  readonly output: Buffer;
  length = 0;
  readonly clock = new LineClock();
  /** An entry takes at most this much room. */
  readonly maxEntryOutput: number;

  /** `output` may be shared by encoders that are used one after the other. */
  constructor(output: Buffer, maxEntryOutput: number) {
    if (output.length < maxEntryOutput) throw new Error('no room for one log entry');
    this.output = output;
    this.maxEntryOutput = maxEntryOutput;
  }

  /** Whether one more entry fits. */
  get hasRoom(): boolean {
    return this.output.length - this.length >= this.maxEntryOutput;
  }

  /**
   * Encode whole entries from `source[start, end)`: lines, and pieces of `MAX_ENTRY_BYTES` of longer ones.
   * Returns where it stopped: at what is not yet a whole entry, or when `output` has no room for another or holds `stopBytes`.
   */
  encode(source: Uint8Array, start: number, end: number, stream: OutputStream, stopBytes = Infinity): number {
    let position = start;
    while (position < end && this.hasRoom && this.length < stopBytes) {
      const limit = Math.min(end, position + MAX_ENTRY_BYTES);
      const next = this.encodeEntry(source, position, limit, stream, limit - position === MAX_ENTRY_BYTES);
      if (next < 0) break;
      position = next;
    }
    return position;
  }

  /** Encode `source[start, end)`, at most `MAX_ENTRY_BYTES` without a newline, as an entry without a newline: the output ended there. */
  encodeRest(source: Uint8Array, start: number, end: number, stream: OutputStream): void {
    if (start < end) this.encodeEntry(source, start, end, stream, true);
  }

  /** Returns the position after the entry, or -1 and writes nothing when `[start, end)` holds no newline and `whole` is false. */
  protected abstract encodeEntry(
    source: Uint8Array,
    start: number,
    end: number,
    stream: OutputStream,
    whole: boolean,
  ): number;
}
