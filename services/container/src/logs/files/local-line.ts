import { EntryEncoder, MAX_ENTRY_BYTES, type OutputStream } from './entry-encoder.js';
import { type DecodeOptions, detailsText, FrameDecoder } from './frame-decoder.js';
import { TIME_BYTES } from './line-clock.js';

const NEWLINE = 0x0a;
/** Of a whole line and of a piece that the next entry of its stream goes on with: `o`, `O` stdout, `e`, `E` stderr. */
const FLAGS = { whole: [0x6f, 0x65], piece: [0x4f, 0x45] } as const;

/** What follows the text of an entry, without the newline. */
export const LOCAL_TRAILER_BYTES = 1 + TIME_BYTES;

/**
 * The entries of the `local` driver: the bytes as they came, a flag, the time, a newline: `texto2026-01-02T03:04:05.000000001Z`. Text holds no newline, so
 * nothing needs escaping; the time stands last, so that it is found from an entry's end.
 */
export class LocalLineEncoder extends EntryEncoder {
  constructor(output: Buffer) {
    super(output, MAX_ENTRY_BYTES + LOCAL_TRAILER_BYTES + 1);
  }

  protected override encodeEntry(
    source: Uint8Array,
    start: number,
    end: number,
    stream: OutputStream,
    whole: boolean,
  ): number {
    const { output } = this;
    let out = this.length;
    let position = start;
    let byte = source[position] ?? 0;
    while (position < end && byte !== NEWLINE) {
      output[out++] = byte;
      byte = source[++position] ?? 0;
    }
    if (position >= end && !whole) return -1;
    const isWhole = position < end;
    output[out++] = FLAGS[isWhole ? 'whole' : 'piece'][stream === 1 ? 0 : 1];
    const { text } = this.clock;
    for (let index = 0; index < TIME_BYTES; index++) output[out++] = text[index] ?? 0;
    output[out++] = NEWLINE;
    this.clock.tick();
    this.length = out;
    return isWhole ? position + 1 : position;
  }
}

/** One entry as drivers send it on. */
export interface LogEntry {
  readonly stream: OutputStream;
  /** Without its newline. */
  readonly text: Buffer;
  /** False: the next entry of the stream goes on with the line. */
  readonly isWhole: boolean;
  readonly time: string;
}

/** The entry `source[start, lineEnd)`, undefined when it is none. Its text is a view of `source`. */
export function parseLocalEntry(source: Buffer, start: number, lineEnd: number): LogEntry | undefined {
  const at = lineEnd - LOCAL_TRAILER_BYTES;
  if (at < start) return undefined;
  const flag = source[at] ?? 0;
  const stream = flagStream(flag);
  if (stream === 0) return undefined;
  const isWhole = flag === FLAGS.whole[stream - 1];
  return { stream, text: source.subarray(start, at), isWhole, time: source.toString('latin1', at + 1, lineEnd) };
}

/** The time of the entry whose newline is at `lineEnd`, or '' when it is none. */
export function timeOfLocalLine(source: Buffer, lineEnd: number): string {
  const at = lineEnd - LOCAL_TRAILER_BYTES;
  if (at < 0 || source[lineEnd - 1] !== 0x5a || flagStream(source[at] ?? 0) === 0) return '';
  return source.toString('latin1', at + 1, lineEnd);
}

function flagStream(flag: number): OutputStream | 0 {
  if (flag === FLAGS.whole[0] || flag === FLAGS.piece[0]) return 1;
  return flag === FLAGS.whole[1] || flag === FLAGS.piece[1] ? 2 : 0;
}

/** Turns entries of the `local` driver into stdcopy frames. A line that is no entry is skipped. */
export class LocalLineDecoder extends FrameDecoder {
  readonly #details: Buffer;

  /** `attributes`: what `--details` shows; the entries do not hold them. */
  constructor(options: DecodeOptions, batchBytes: number, attributes: Readonly<Record<string, string>> | undefined) {
    const details = Buffer.from(options.details ? `${detailsText(attributes)} ` : '');
    super(options, batchBytes, details.length);
    this.#details = details;
  }

  protected override decodeLine(source: Buffer, start: number, lineEnd: number): void {
    const at = lineEnd - LOCAL_TRAILER_BYTES;
    const flag = at < start ? 0 : (source[at] ?? 0);
    const stream = flagStream(flag);
    if (stream === 0) return;
    if (this.filtersByTime && !this.wants(source.toString('latin1', at + 1, lineEnd))) return;
    const { stdout, stderr, timestamps, framePerLine } = this.options;
    if (!(stream === 1 ? stdout : stderr)) return;
    if (this.frameStart >= 0 && this.frameStream !== stream) this.closeFrame();
    let out = this.begin(stream);
    const { output } = this;
    if (timestamps) {
      out += source.copy(output, out, at + 1, lineEnd);
      output[out++] = 0x20;
    }
    if (this.#details.length > 0) out += this.#details.copy(output, out);
    out += source.copy(output, out, start, at);
    if (flag === FLAGS.whole[stream - 1]) output[out++] = NEWLINE;
    this.length = out;
    if (framePerLine) this.closeFrame();
  }
}
