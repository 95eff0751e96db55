import fc from 'fast-check';
import { expect, it } from 'vitest';
import { ENCODER_OUTPUT_BYTES, MAX_ENTRY_BYTES } from './entry-encoder.js';
import type { DecodeOptions } from './frame-decoder.js';
import { LocalLineDecoder, LocalLineEncoder, parseLocalEntry, timeOfLocalLine } from './local-line.js';

const RAW: DecodeOptions = {
  ...{ stdout: true, stderr: true, raw: true, timestamps: false, details: false, framePerLine: false },
  ...{ since: undefined, until: undefined, after: undefined },
};

function encode(parts: readonly [1 | 2, Uint8Array][]): Buffer {
  const encoder = new LocalLineEncoder(Buffer.alloc(ENCODER_OUTPUT_BYTES));
  encoder.clock.advance();
  for (const [stream, bytes] of parts) {
    const position = encoder.encode(bytes, 0, bytes.length, stream);
    encoder.encodeRest(bytes, position, bytes.length, stream);
  }
  return Buffer.from(encoder.output.subarray(0, encoder.length));
}

function decode(log: Buffer, options: Partial<DecodeOptions> = {}, attributes?: Record<string, string>): Buffer {
  const decoder = new LocalLineDecoder({ ...RAW, ...options }, 256 * 1024, attributes);
  expect(decoder.decode(log, 0, log.length)).toBe(log.length);
  return Buffer.from(decoder.take());
}

it('gives back any bytes', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 400 }), (bytes) => {
      expect(decode(encode([[1, bytes]]))).toEqual(Buffer.from(bytes));
    }),
  );
});

it('splits long lines into pieces that say so', () => {
  const line = Buffer.from(`${'x'.repeat(MAX_ENTRY_BYTES + 10)}\n`);
  const log = encode([[2, line]]);
  const ends = [log.indexOf('\n'), log.length - 1];
  const entries = [parseLocalEntry(log, 0, ends[0] ?? 0), parseLocalEntry(log, (ends[0] ?? 0) + 1, ends[1] ?? 0)];
  expect(entries.map((entry) => [entry?.stream, entry?.isWhole, entry?.text.length])).toEqual([
    [2, false, MAX_ENTRY_BYTES],
    [2, true, 10],
  ]);
  expect(timeOfLocalLine(log, ends[0] ?? 0)).toBe(entries[0]?.time);
  expect(decode(log)).toEqual(line);
});

it('makes a frame for each run of lines of one stream', () => {
  const log = encode([
    [1, Buffer.from('a\nb\n')],
    [2, Buffer.from('e\n')],
    [1, Buffer.from('c\n')],
  ]);
  const frame = (stream: number, text: string): Buffer =>
    Buffer.concat([Buffer.from([stream, 0, 0, 0, 0, 0, 0, text.length]), Buffer.from(text)]);
  expect(decode(log, { raw: false })).toEqual(Buffer.concat([frame(1, 'a\nb\n'), frame(2, 'e\n'), frame(1, 'c\n')]));
  expect(decode(log, { raw: false, stdout: false })).toEqual(frame(2, 'e\n'));
});

it('shows times and attributes, and skips what is no entry', () => {
  const log = Buffer.concat([Buffer.from('not one of ours\n'), encode([[1, Buffer.from('a\n')]])]);
  const time = timeOfLocalLine(log, log.length - 1);
  expect(decode(log, { timestamps: true, details: true }, { b: 'x y', a: '1' }).toString()).toBe(
    `${time} a=1,b=x+y a\n`,
  );
});
