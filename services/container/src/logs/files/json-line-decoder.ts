import type { OutputStream } from './entry-encoder.js';
import { detailsText, FrameDecoder, normalTime } from './frame-decoder.js';
import { TIME_BYTES } from './line-clock.js';

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const FRAME_HEADER_BYTES = 8;
const MIDDLE = Buffer.from(',"stream":"std');

/**
 * Turns entries of Docker's json-file format into stdcopy frames.
 *
 * Entries as our writer and dockerd write them are decoded byte by byte without making strings; any other valid JSON takes the slow way, and a line that is
 * not JSON is skipped.
 */
export class JsonLineDecoder extends FrameDecoder {
  readonly #timeScratch = Buffer.alloc(TIME_BYTES);

  protected override decodeLine(source: Buffer, start: number, lineEnd: number): void {
    const lengthBefore = this.length;
    const frameBefore = this.frameStart;
    const frameStreamBefore = this.frameStream;
    if (!this.#decodeFast(source, start, lineEnd)) {
      this.length = lengthBefore;
      this.frameStart = frameBefore;
      this.frameStream = frameStreamBefore;
      this.#decodeSlowly(source, start, lineEnd);
    }
  }

  /** Returns false, with anything in `output` after `length`, when the entry is not laid out as expected. */
  #decodeFast(source: Buffer, start: number, lineEnd: number): boolean {
    // `{"log":"...","stream":"stdout",(attrs)"time":"..."}`: the time is the last field, so it is found from the end.
    const timeEnd = lineEnd - 2;
    if (timeEnd - start < 60 || source[lineEnd - 1] !== 0x7d || source[timeEnd] !== QUOTE) return false;
    if (source[start] !== 0x7b || source[start + 2] !== 0x6c || source[start + 7] !== QUOTE) return false;
    const timeStart = findTime(source, timeEnd);
    if (timeStart < 0 || this.options.details) return false;
    if (this.filtersByTime && !this.wants(this.#time(source, timeStart, timeEnd).toString('latin1', 0, TIME_BYTES)))
      return true;

    // The stream stands after the text, so it is known only afterwards: guess that it is the last one's.
    const guess = this.frameStream;
    let out = this.begin(guess);
    const { output } = this;
    if (this.options.timestamps) {
      output.set(this.#time(source, timeStart, timeEnd), out);
      out += TIME_BYTES;
      output[out++] = 0x20;
    }
    let position = start + 8;
    let byte = source[position];
    while (byte !== QUOTE) {
      if (byte !== BACKSLASH) {
        if (byte === undefined || position >= timeStart) return false;
        output[out++] = byte;
        byte = source[++position];
        continue;
      }
      const escape = source[position + 1];
      position += 2;
      switch (escape) {
        case 0x6e:
          output[out++] = 0x0a;
          break;
        case QUOTE:
        case BACKSLASH:
        case 0x2f:
          output[out++] = escape;
          break;
        case 0x72:
          output[out++] = 0x0d;
          break;
        case 0x74:
          output[out++] = 0x09;
          break;
        case 0x62:
          output[out++] = 0x08;
          break;
        case 0x66:
          output[out++] = 0x0c;
          break;
        case 0x75: {
          const unit = hex4(source, position);
          // Surrogate pairs are other writers' business.
          if (unit < 0 || (unit >= 0xd800 && unit <= 0xdfff)) return false;
          position += 4;
          if (unit < 0x80) output[out++] = unit;
          else if (unit < 0x800) {
            output[out++] = 0xc0 | (unit >> 6);
            output[out++] = 0x80 | (unit & 0x3f);
          } else {
            output[out++] = 0xe0 | (unit >> 12);
            output[out++] = 0x80 | ((unit >> 6) & 0x3f);
            output[out++] = 0x80 | (unit & 0x3f);
          }
          break;
        }
        default:
          return false;
      }
      byte = source[position];
    }
    position++;
    for (let index = 0; index < MIDDLE.length; index++) {
      if (source[position + index] !== MIDDLE[index]) return false;
    }
    const letter = source[position + MIDDLE.length];
    const stream = letter === 0x6f ? 1 : letter === 0x65 ? 2 : 0;
    if (stream === 0) return false;
    if (!(stream === 1 ? this.options.stdout : this.options.stderr)) {
      this.#cancel(guess);
      return true;
    }
    if (stream !== guess) this.#changeStream(stream, out);
    else this.length = out;
    if (this.options.framePerLine) this.closeFrame();
    return true;
  }

  #decodeSlowly(source: Buffer, start: number, lineEnd: number): void {
    let entry: { log?: unknown; stream?: unknown; time?: unknown; attrs?: unknown };
    try {
      entry = JSON.parse(source.toString('utf8', start, lineEnd)) as typeof entry;
    } catch {
      return;
    }
    if (typeof entry !== 'object' || (entry as unknown) === null || typeof entry.log !== 'string') return;
    const stream = entry.stream === 'stderr' ? 2 : 1;
    const time = normalTime(typeof entry.time === 'string' ? entry.time : '');
    if (this.filtersByTime && !this.wants(time)) return;
    if (!(stream === 1 ? this.options.stdout : this.options.stderr)) return;
    const details = this.options.details ? `${detailsText(entry.attrs)} ` : '';
    const text = `${this.options.timestamps ? `${time} ` : ''}${details}${entry.log}`;
    const bytes = Buffer.byteLength(text);
    if (this.output.length - this.length < bytes + FRAME_HEADER_BYTES) {
      this.closeFrame();
      this.output = Buffer.concat([this.output.subarray(0, this.length), Buffer.alloc(bytes + FRAME_HEADER_BYTES)]);
    }
    if (this.frameStart >= 0 && this.frameStream !== stream) this.closeFrame();
    this.frameStream = stream;
    const out = this.begin(stream);
    this.length = out + this.output.write(text, out);
    if (this.options.framePerLine) this.closeFrame();
  }

  /** The line that was decoded after `#begin` is not wanted: close a frame that was opened for it. */
  #cancel(stream: OutputStream): void {
    this.frameStream = stream;
    if (this.frameStart === this.length) this.frameStart = -1;
  }

  /** What was decoded up to `out` belongs to the other stream: give it a frame of its own. */
  #changeStream(stream: OutputStream, out: number): void {
    this.frameStream = stream;
    if (this.options.raw) {
      this.length = out;
      return;
    }
    if (this.frameStart === this.length) {
      this.length = out;
      return;
    }
    const lineStart = this.length;
    this.frameStream = stream === 1 ? 2 : 1;
    this.closeFrame();
    this.output.copyWithin(lineStart + FRAME_HEADER_BYTES, lineStart, out);
    this.frameStart = lineStart;
    this.frameStream = stream;
    this.length = out + FRAME_HEADER_BYTES;
  }

  /** The time at `[start, end)` with nine digits. */
  #time(source: Buffer, start: number, end: number): Buffer {
    if (end - start === TIME_BYTES) return source.subarray(start, end);
    this.#timeScratch.write(normalTime(source.toString('latin1', start, end)), 0, 'latin1');
    return this.#timeScratch;
  }
}

/** Where the text of `"time":"..."` begins that ends at `end`, or -1. */
function findTime(source: Buffer, end: number): number {
  // Nine digits, as our writer always has them; else fewer, as dockerd may.
  for (let start = end - TIME_BYTES; start <= end - 20; start++) {
    if (
      source[start - 1] === QUOTE &&
      source[start - 2] === 0x3a &&
      source[start - 4] === 0x65 &&
      source[start - 7] === 0x74 &&
      source[start - 9] === 0x2c &&
      source[end - 1] === 0x5a
    ) {
      return start;
    }
  }
  return -1;
}

function hex4(source: Buffer, start: number): number {
  let value = 0;
  for (let index = start; index < start + 4; index++) {
    const byte = source[index] ?? 0;
    const digit = byte <= 0x39 ? byte - 0x30 : (byte | 0x20) - 0x57;
    if (digit < 0 || digit > 15) return -1;
    value = (value << 4) | digit;
  }
  return value;
}

/** The time of the line whose newline is at `lineEnd`, or '' when it does not end with one. */
export function timeOfLine(source: Buffer, lineEnd: number): string {
  if (lineEnd < 40 || source[lineEnd - 2] !== QUOTE) return '';
  const start = findTime(source, lineEnd - 2);
  return start < 0 ? '' : source.toString('latin1', start, lineEnd - 2);
}
