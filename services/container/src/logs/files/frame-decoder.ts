import type { OutputStream } from './entry-encoder.js';
import { TIME_BYTES } from './line-clock.js';

const NEWLINE = 0x0a;
const FRAME_HEADER_BYTES = 8;
/** A smaller batch is copied and the large buffer used again. */
const SMALL_BATCH_BYTES = 16 * 1024;

/** Which entries to deliver and how they look. */
export interface DecodeOptions {
  readonly stdout: boolean;
  readonly stderr: boolean;
  readonly raw: boolean;
  readonly timestamps: boolean;
  readonly details: boolean;
  readonly framePerLine: boolean;
  /** Times with nine digits: entries before `since` are left out, the first one after `until` ends the reading. */
  readonly since: string | undefined;
  readonly until: string | undefined;
  /** Entries at or before this time are left out. */
  readonly after: string | undefined;
}

/** Turns the entries of a log file into stdcopy frames, or into the bytes alone. */
export abstract class FrameDecoder {
  /** Frames made so far are in `output[0, length)`. */
  output: Buffer;
  length = 0;
  /** An entry after `until` was met: nothing more will come. */
  finished = false;
  protected readonly options: DecodeOptions;
  protected readonly filtersByTime: boolean;
  readonly #batchBytes: number;
  readonly #extraBytes: number;
  protected frameStart = -1;
  protected frameStream: OutputStream = 1;

  /** `extraBytes`: how much longer than its entry a decoded one may become, beside header and time. */
  constructor(options: DecodeOptions, batchBytes: number, extraBytes = 0) {
    this.options = options;
    this.filtersByTime = options.since !== undefined || options.until !== undefined || options.after !== undefined;
    this.#batchBytes = batchBytes;
    this.#extraBytes = extraBytes;
    this.output = Buffer.allocUnsafeSlow(batchBytes);
  }

  /** Give away what was made; a new buffer takes its place. */
  take(): Uint8Array<ArrayBuffer> {
    this.closeFrame();
    if (this.length < SMALL_BATCH_BYTES) {
      const copy = new Uint8Array(this.length);
      copy.set(this.output.subarray(0, this.length));
      this.length = 0;
      return copy;
    }
    const taken = new Uint8Array(this.output.buffer as ArrayBuffer, 0, this.length);
    this.output = Buffer.allocUnsafeSlow(this.#batchBytes);
    this.length = 0;
    return taken;
  }

  /**
   * Decode whole lines of `source[start, end)`. Returns the position after the last line that was taken: `output` may be full (`take` makes room), and
   * the last line may have no end yet.
   */
  decode(source: Buffer, start: number, end: number): number {
    let position = start;
    while (position < end && !this.finished) {
      const lineEnd = source.indexOf(NEWLINE, position);
      if (lineEnd < 0 || lineEnd >= end) break;
      // A decoded entry is never longer than the entry itself, but for its header and time (details take the slow way, which makes its own room).
      const needed = lineEnd - position + 2 * FRAME_HEADER_BYTES + TIME_BYTES + 1 + this.#extraBytes;
      if (needed > this.output.length - this.length) {
        if (this.length > 0) break;
        this.output = Buffer.allocUnsafeSlow(needed);
      }
      this.decodeLine(source, position, lineEnd);
      position = lineEnd + 1;
    }
    return position;
  }

  /** One entry, `source[start, lineEnd)`. There is room for it, its header, its time and `extraBytes`. */
  protected abstract decodeLine(source: Buffer, start: number, lineEnd: number): void;

  protected wants(time: string): boolean {
    const { since, until, after } = this.options;
    if (until !== undefined && time > until) {
      this.finished = true;
      return false;
    }
    return (since === undefined || time >= since) && (after === undefined || time > after);
  }

  /** Open a frame when none is open. Returns where its next byte goes. */
  protected begin(stream: OutputStream): number {
    if (this.options.raw || this.frameStart >= 0) return this.length;
    this.frameStart = this.length;
    this.frameStream = stream;
    return this.length + FRAME_HEADER_BYTES;
  }

  protected closeFrame(): void {
    const start = this.frameStart;
    if (start < 0) return;
    this.frameStart = -1;
    const { output } = this;
    output.writeUInt32BE(this.frameStream << 24, start);
    output.writeUInt32BE(this.length - start - FRAME_HEADER_BYTES, start + 4);
  }
}

/** A time as json-file logs have it, with nine digits and in UTC. */
export function normalTime(text: string): string {
  const match = /^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)$/.exec(text);
  if (match === null) return '0001-01-01T00:00:00.000000000Z';
  const [, seconds = '', fraction = '', zone = 'Z'] = match;
  const inUtc = zone === 'Z' ? seconds : new Date(`${seconds}${zone}`).toISOString().slice(0, 19);
  return `${inUtc}.${fraction.padEnd(9, '0')}Z`;
}

/** Attributes as `docker logs --details` shows them. Source: moby/moby daemon/internal/httputils (WriteLogStream). */
export function detailsText(attributes: unknown): string {
  if (typeof attributes !== 'object' || attributes === null) return '';
  return Object.entries(attributes)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([key, value]) => `${queryEscape(key)}=${queryEscape(String(value))}`)
    .join(',');
}

/** As Go's url.QueryEscape. */
function queryEscape(text: string): string {
  return encodeURIComponent(text)
    .replace(/[!'()*]/g, (character) => `%${character.charCodeAt(0).toString(16).toUpperCase()}`)
    .replace(/%20/g, '+');
}
