import { createHash } from 'node:crypto';
import type { PartialLine, SentEntry } from '../drivers/receiver.js';
import { MAX_ENTRY_BYTES, type OutputStream } from '../files/entry-encoder.js';
import { parseLocalEntry, timeOfLocalLine } from '../files/local-line.js';
import type { BatchDecoder } from '../files/log-file-reader.js';

const BATCH_BYTES = 128 * 1024;
const NEWLINE = 0x0a;

/** Takes entries as they lie in the file, so that what was read is what is counted. */
export class RawEntries implements BatchDecoder {
  length = 0;
  readonly finished = false;
  #buffer = Buffer.allocUnsafeSlow(BATCH_BYTES);
  #after: string | undefined;

  /** Entries at or before `after` are left out. */
  constructor(after: string | undefined) {
    this.#after = after;
  }

  decode(source: Buffer, start: number, end: number): number {
    let position = this.#skipOld(source, start, end);
    const room = this.#buffer.length - this.length;
    const last = source.lastIndexOf(NEWLINE, Math.min(end, position + room) - 1);
    if (last < position) {
      // One entry that does not fit at all is none of ours.
      const lineEnd = source.indexOf(NEWLINE, position);
      if (this.length === 0 && lineEnd >= 0 && lineEnd < end) position = lineEnd + 1;
      return position;
    }
    this.length += source.copy(this.#buffer, this.length, position, last + 1);
    return last + 1;
  }

  take(): Uint8Array<ArrayBuffer> {
    const taken = new Uint8Array(this.length);
    taken.set(this.#buffer.subarray(0, this.length));
    this.length = 0;
    return taken;
  }

  #skipOld(source: Buffer, start: number, end: number): number {
    let position = start;
    while (this.#after !== undefined) {
      const lineEnd = source.indexOf(NEWLINE, position);
      if (lineEnd < 0 || lineEnd >= end) break;
      if (timeOfLocalLine(source, lineEnd) > this.#after) this.#after = undefined;
      else position = lineEnd + 1;
    }
    return position;
  }
}

/** Makes entries of batches and tells which of them are pieces of one line. */
export class EntryParser {
  readonly #open = new Map<OutputStream, { id: string; ordinal: number }>();

  parse(batch: Buffer): SentEntry[] {
    const entries: SentEntry[] = [];
    for (let start = 0; start < batch.length;) {
      const lineEnd = batch.indexOf(NEWLINE, start);
      if (lineEnd < 0) break;
      const entry = parseLocalEntry(batch, start, lineEnd);
      if (entry !== undefined) {
        // A shorter piece without a newline is the end of a run's output: nothing follows it.
        const isLast = entry.isWhole || entry.text.length < MAX_ENTRY_BYTES;
        entries.push({ ...entry, partial: this.#partial(entry.stream, entry.time, isLast) });
      }
      start = lineEnd + 1;
    }
    return entries;
  }

  #partial(stream: OutputStream, time: string, isLast: boolean): PartialLine | undefined {
    const open = this.#open.get(stream);
    if (open === undefined && isLast) return undefined;
    const line = open ?? { id: createHash('sha256').update(`${stream} ${time}`).digest('hex'), ordinal: 0 };
    line.ordinal++;
    if (isLast) this.#open.delete(stream);
    else this.#open.set(stream, line);
    return { id: line.id, ordinal: line.ordinal, isLast };
  }
}
