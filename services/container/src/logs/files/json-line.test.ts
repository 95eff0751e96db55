import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ENCODER_OUTPUT_BYTES, MAX_ENTRY_BYTES } from './entry-encoder.js';
import type { DecodeOptions } from './frame-decoder.js';
import { JsonLineDecoder } from './json-line-decoder.js';
import { JsonLineEncoder } from './json-line-encoder.js';

const ALL: DecodeOptions = {
  stdout: true,
  stderr: true,
  raw: true,
  timestamps: false,
  details: false,
  framePerLine: false,
  since: undefined,
  until: undefined,
  after: undefined,
};

function encode(bytes: Uint8Array, attributes?: Record<string, string>): Buffer {
  const encoder = new JsonLineEncoder(attributes, Buffer.alloc(ENCODER_OUTPUT_BYTES));
  encoder.clock.advance();
  const end = encoder.encode(bytes, 0, bytes.length, 1);
  encoder.encodeRest(bytes, end, bytes.length, 1);
  return Buffer.from(encoder.output.subarray(0, encoder.length));
}

function decode(log: Buffer, options: Partial<DecodeOptions> = {}): Buffer {
  const decoder = new JsonLineDecoder({ ...ALL, ...options }, 256 * 1024);
  expect(decoder.decode(log, 0, log.length)).toBe(log.length);
  return Buffer.from(decoder.take());
}

describe('json-file entries', () => {
  it('have the layout that dockerd writes', () => {
    const text = encode(Buffer.from('a "b" \\ <c>&\t\r\u0001é\u2028\n')).toString();
    expect(text).toMatch(
      /^\{"log":"a \\"b\\" \\\\ \\u003cc\\u003e\\u0026\\u0009\\r\\u0001é\\u2028\\n","stream":"stdout","time":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z"\}\n$/,
    );
  });

  it('put attributes between stream and time, sorted and escaped as Go does', () => {
    const text = encode(Buffer.from('x\n'), { tag: 'a<b', env: '1' }).toString();
    expect(text).toContain('"stream":"stdout","attrs":{"env":"1","tag":"a\\u003cb"},"time":"');
    expect((JSON.parse(text) as { attrs: unknown }).attrs).toEqual({ tag: 'a<b', env: '1' });
    expect(decode(Buffer.from(text), { details: true }).toString()).toBe('env=1,tag=a%3Cb x\n');
    expect(decode(Buffer.from(text)).toString()).toBe('x\n');
  });

  it('replace invalid UTF-8 as Go does, one character for each wrong byte', () => {
    for (const bytes of [
      [0xff, 0x41],
      [0xc0, 0xaf],
      [0xe2, 0x82],
      [0xed, 0xa0, 0x80],
      [0xf4, 0x90, 0x80, 0x80],
      [0xf0, 0x9f, 0x98, 0x80],
    ]) {
      const expected = bytes[1] === 0x9f ? '😀' : bytes.map((byte) => (byte < 0x80 ? 'A' : '\ufffd')).join('');
      expect(decode(encode(Buffer.from(bytes))).toString()).toBe(expected);
    }
  });

  it('split longer lines into entries of 16 KiB, the last with the newline', () => {
    const line = Buffer.alloc(MAX_ENTRY_BYTES * 2 + 10, 'x');
    const log = encode(Buffer.concat([line, Buffer.from('\nnext\n')])).toString();
    const entries = log
      .trimEnd()
      .split('\n')
      .map((text) => (JSON.parse(text) as { log: string }).log);
    expect(entries.map((entry) => entry.length)).toEqual([MAX_ENTRY_BYTES, MAX_ENTRY_BYTES, 11, 5]);
    expect(entries[2]?.endsWith('\n')).toBe(true);
  });

  it('have strictly increasing times', () => {
    const log = encode(Buffer.from('\n'.repeat(5000))).toString();
    const times = [...log.matchAll(/"time":"([^"]*)"/g)].map((match) => match[1] ?? '');
    expect(times).toHaveLength(5000);
    for (let index = 1; index < times.length; index++) {
      expect(times[index] ?? '' > (times[index - 1] ?? '')).toBeTruthy();
    }
    expect([...times].sort()).toEqual(times);
    expect(new Set(times).size).toBe(times.length);
  });

  it('give back any text, and parse as JSON to the same', () => {
    fc.assert(
      fc.property(fc.array(fc.string({ unit: 'binary' })), (lines) => {
        const text = lines.map((line) => `${line}\n`).join('');
        // Lone surrogates have no UTF-8.
        const expected = Buffer.from(text).toString();
        const log = encode(Buffer.from(text));
        expect(decode(log).toString()).toBe(expected);
        const parsed = log.toString().split('\n').slice(0, -1);
        expect(parsed.map((entry) => (JSON.parse(entry) as { log: string }).log).join('')).toBe(expected);
      }),
    );
  });

  it('are read as other writers lay them out', () => {
    const lines = [
      '{"log":"plain\\n","stream":"stderr","time":"2026-01-02T03:04:05.12Z"}',
      '{"log":"pair \\ud83d\\ude00 \\/\\b\\n","stream":"stdout","time":"2026-01-02T03:04:06Z"}',
      'not json',
      '{"time":"2026-01-02T05:04:07+02:00","stream":"stdout","log":"order\\n"}',
      '{"stream":"stdout","time":"2026-01-02T03:04:08Z"}',
    ];
    const text = decode(Buffer.from(`${lines.join('\n')}\n`), { timestamps: true }).toString();
    expect(text).toBe(
      '2026-01-02T03:04:05.120000000Z plain\n2026-01-02T03:04:06.000000000Z pair 😀 /\b\n2026-01-02T03:04:07.000000000Z order\n',
    );
  });
});

describe('frames', () => {
  const entry = (stream: string, text: string, second: number) =>
    `{"log":"${text}\\n","stream":"${stream}","time":"2026-01-02T03:04:0${second}.123456789Z"}\n`;
  const log = Buffer.from(
    entry('stderr', 'e1', 1) + entry('stdout', 'o1', 2) + entry('stdout', 'o2', 3) + entry('stderr', 'e2', 4),
  );
  const frame = (stream: number, text: string) => {
    const header = Buffer.alloc(8);
    header[0] = stream;
    header.writeUInt32BE(Buffer.byteLength(text), 4);
    return Buffer.concat([header, Buffer.from(text)]);
  };

  it('join lines of one stream', () => {
    expect(decode(log, { raw: false })).toEqual(
      Buffer.concat([frame(2, 'e1\n'), frame(1, 'o1\no2\n'), frame(2, 'e2\n')]),
    );
  });

  it('hold one line each when asked for', () => {
    expect(decode(log, { raw: false, framePerLine: true })).toEqual(
      Buffer.concat([frame(2, 'e1\n'), frame(1, 'o1\n'), frame(1, 'o2\n'), frame(2, 'e2\n')]),
    );
  });

  it('leave out a stream and times', () => {
    expect(decode(log, { raw: false, stdout: false })).toEqual(frame(2, 'e1\ne2\n'));
    expect(decode(log, { raw: false, stderr: false })).toEqual(frame(1, 'o1\no2\n'));
    const since = '2026-01-02T03:04:02.123456789Z';
    const until = '2026-01-02T03:04:03.123456789Z';
    const bounded = new JsonLineDecoder({ ...ALL, since, until }, 1 << 18);
    bounded.decode(log, 0, log.length);
    expect(Buffer.from(bounded.take()).toString()).toBe('o1\no2\n');
    expect(bounded.finished).toBe(true);
    expect(decode(log, { after: since }).toString()).toBe('o2\ne2\n');
  });
});
