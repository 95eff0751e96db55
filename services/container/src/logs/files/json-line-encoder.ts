import { EntryEncoder, MAX_ENTRY_BYTES, type OutputStream } from './entry-encoder.js';
import { TIME_BYTES } from './line-clock.js';

const PREFIX = Buffer.from('{"log":"');
const HEX = Buffer.from('0123456789abcdef');
const REPLACEMENT = Buffer.from('\\ufffd');

/** Bytes that stand for themselves in a JSON string of Docker's: no control characters, quote, backslash, `<`, `>`, `&`, nothing beyond ASCII. */
const PLAIN = new Uint8Array(256);
for (let byte = 0x20; byte < 0x80; byte++) PLAIN[byte] = '"\\<>&'.includes(String.fromCharCode(byte)) ? 0 : 1;

/** Stream names in the order of stdcopy's numbers. */
export const STREAM_NAMES = ['stdin', 'stdout', 'stderr'] as const;

/**
 * Turns bytes of a stream into entries of Docker's json-file format, one per line:
 * `{"log":"text\n","stream":"stdout","time":"2026-01-02T03:04:05.000000001Z"}`.
 * Invalid UTF-8 becomes U+FFFD, one for each wrong byte. Source: moby/moby daemon/logger/jsonfilelog/jsonlog/jsonlogbytes.go.
 */
export class JsonLineEncoder extends EntryEncoder {
  readonly #trailers: readonly [Buffer, Buffer];
  readonly #timeOffsets: readonly [number, number];

  constructor(attributes: Readonly<Record<string, string>> | undefined, output: Buffer) {
    const attrs =
      attributes === undefined || Object.keys(attributes).length === 0
        ? ''
        : `"attrs":${escapeForGo(JSON.stringify(sorted(attributes)))},`;
    const trailer = (stream: OutputStream) =>
      Buffer.from(`","stream":"${STREAM_NAMES[stream]}",${attrs}"time":"${'0'.repeat(TIME_BYTES)}"}\n`);
    const trailers = [trailer(1), trailer(2)] as const;
    super(output, PREFIX.length + MAX_ENTRY_BYTES * 6 + 2 + trailers[0].length);
    this.#trailers = trailers;
    this.#timeOffsets = [trailers[0].length - TIME_BYTES - 3, trailers[1].length - TIME_BYTES - 3];
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
    for (let index = 0; index < 8; index++) output[out++] = PREFIX[index] ?? 0;
    let position = start;
    for (;;) {
      if (position >= end) {
        if (!whole) return -1;
        break;
      }
      const byte = source[position] ?? 0;
      if (PLAIN[byte] === 1) {
        output[out++] = byte;
        position++;
        continue;
      }
      if (byte >= 0x80) {
        const length = sequenceLength(source, position, end);
        if (length === 0) {
          for (let index = 0; index < 6; index++) output[out++] = REPLACEMENT[index] ?? 0;
          position++;
        } else if (
          length === 3 &&
          byte === 0xe2 &&
          source[position + 1] === 0x80 &&
          isLineSeparator(source[position + 2])
        ) {
          out += output.write(source[position + 2] === 0xa8 ? '\\u2028' : '\\u2029', out, 'latin1');
          position += 3;
        } else {
          for (const stop = position + length; position < stop; position++) output[out++] = source[position] ?? 0;
        }
        continue;
      }
      output[out++] = 0x5c;
      position++;
      if (byte === 0x0a) {
        output[out++] = 0x6e;
        break;
      }
      if (byte === 0x22 || byte === 0x5c) output[out++] = byte;
      else if (byte === 0x0d) output[out++] = 0x72;
      else {
        output[out++] = 0x75;
        output[out++] = 0x30;
        output[out++] = 0x30;
        output[out++] = HEX[byte >> 4] ?? 0;
        output[out++] = HEX[byte & 15] ?? 0;
      }
    }
    this.length = this.#writeTrailer(out, stream);
    return position;
  }

  #writeTrailer(start: number, stream: OutputStream): number {
    const { output } = this;
    const trailer = this.#trailers[stream === 1 ? 0 : 1];
    const timeOffset = this.#timeOffsets[stream === 1 ? 0 : 1];
    const { text } = this.clock;
    let out = start;
    for (let index = 0; index < timeOffset; index++) output[out++] = trailer[index] ?? 0;
    for (let index = 0; index < TIME_BYTES; index++) output[out++] = text[index] ?? 0;
    output[out++] = 0x22;
    output[out++] = 0x7d;
    output[out++] = 0x0a;
    this.clock.tick();
    return out;
  }
}

function isLineSeparator(byte: number | undefined): boolean {
  return byte === 0xa8 || byte === 0xa9;
}

/** Bytes of the UTF-8 sequence at `position`, 0 when it is not valid (as Go's utf8.DecodeRune). */
function sequenceLength(source: Uint8Array, position: number, end: number): number {
  const first = source[position] ?? 0;
  if (first < 0xc2 || first > 0xf4) return 0;
  const length = first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
  if (position + length > end) return 0;
  const second = source[position + 1] ?? 0;
  const low = first === 0xe0 ? 0xa0 : first === 0xf0 ? 0x90 : 0x80;
  const high = first === 0xed ? 0x9f : first === 0xf4 ? 0x8f : 0xbf;
  if (second < low || second > high) return 0;
  for (let index = 2; index < length; index++) {
    if (((source[position + index] ?? 0) & 0xc0) !== 0x80) return 0;
  }
  return length;
}

/** Go writes maps by key. */
function sorted(attributes: Readonly<Record<string, string>>): Record<string, string> {
  return Object.fromEntries(Object.entries(attributes).sort(([a], [b]) => (a < b ? -1 : 1)));
}

/** Go's encoding/json escapes these in strings. */
function escapeForGo(json: string): string {
  return json.replace(
    /[<>&\u2028\u2029]/g,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
}
