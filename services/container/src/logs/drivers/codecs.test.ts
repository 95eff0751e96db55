import { gunzipSync, inflateSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import type { FluentdConfig, GelfConfig, SyslogConfig } from '../options/remote-config.js';
import { forwardMessage } from './fluentd.js';
import { gelfDatagrams } from './gelf.js';
import { journalMessage } from './journald.js';
import { EventTime, pack } from './msgpack.js';
import type { SentEntry } from './receiver.js';
import { syslogMessage } from './syslog.js';

const entry: SentEntry = {
  stream: 1,
  text: Buffer.from('hello'),
  isWhole: true,
  time: '2026-01-02T03:04:05.123456789Z',
  partial: undefined,
};
const piece: SentEntry = { ...entry, stream: 2, isWhole: false, partial: { id: 'p', ordinal: 1, isLast: false } };

describe('syslog', () => {
  const message = (config: Partial<SyslogConfig>, of = entry): string =>
    syslogMessage(
      { kind: 'syslog', facility: 3, format: 'unix', tag: 'docker/t', ...config },
      of,
      'host',
      7,
    ).toString();
  const local = new Date(entry.time);
  const clock = local.toTimeString().slice(0, 8);

  it('writes each format', () => {
    expect(message({})).toBe(`<30>Jan  ${local.getDate()} ${clock} docker/t[7]: hello\n`);
    expect(message({ format: 'rfc3164' }, piece)).toBe(
      `<27>Jan  ${local.getDate()} ${clock} host docker/t[7]: hello\n`,
    );
    expect(message({ format: 'rfc5424', facility: 23 })).toBe(
      '<190>1 2026-01-02T03:04:05Z host docker/t 7 docker/t - hello\n',
    );
    expect(message({ format: 'rfc5424micro' })).toBe(
      '<30>1 2026-01-02T03:04:05.123456Z host docker/t 7 docker/t - hello\n',
    );
  });

  it('counts the octets of RFC 5424 over TLS', () => {
    const address = { proto: 'tcp+tls', host: 'h', port: 1 } as const;
    const framed = message({ format: 'rfc5424', address });
    const [length, rest] = [framed.slice(0, framed.indexOf(' ')), framed.slice(framed.indexOf(' ') + 1)];
    expect(Number(length)).toBe(rest.length);
    expect(message({ address }).startsWith('<30>')).toBe(true);
  });
});

describe('gelf', () => {
  const config: GelfConfig = {
    ...{ kind: 'gelf', compression: 'none', level: 1, retryWaitMs: 1, maxRetries: 1 },
    ...{ address: { proto: 'udp', host: 'h', port: 1 }, fields: { _tag: 't' } },
  };
  const expected = {
    ...{ version: '1.1', host: 'host', short_message: 'hello', timestamp: Date.parse(entry.time) / 1000 },
    ...{ level: 6, _tag: 't' },
  };

  it('is compressed as asked', () => {
    const of = (compression: GelfConfig['compression']) =>
      Buffer.concat(gelfDatagrams({ ...config, compression }, entry, 'host'));
    expect(JSON.parse(of('none').toString())).toEqual(expected);
    expect(JSON.parse(gunzipSync(of('gzip')).toString())).toEqual(expected);
    expect(JSON.parse(inflateSync(of('zlib')).toString())).toEqual(expected);
  });

  it('ends with a zero byte over TCP', () => {
    const [message] = gelfDatagrams({ ...config, address: { proto: 'tcp', host: 'h', port: 1 } }, piece, 'host');
    expect(message?.at(-1)).toBe(0);
    expect(JSON.parse(message?.toString('utf8', 0, message.length - 1) ?? '')).toEqual({ ...expected, level: 3 });
  });

  it('is cut into chunks, and left out where they would be too many', () => {
    const chunks = gelfDatagrams(config, { ...entry, text: Buffer.alloc(4000, 'x') }, 'host');
    expect(chunks.map((chunk) => [chunk[0], chunk[1], chunk[10], chunk[11]])).toEqual([
      [0x1e, 0x0f, 0, 3],
      [0x1e, 0x0f, 1, 3],
      [0x1e, 0x0f, 2, 3],
    ]);
    expect(new Set(chunks.map((chunk) => chunk.toString('hex', 2, 10))).size).toBe(1);
    expect(Math.max(...chunks.map(({ length }) => length))).toBe(1420);
    const joined = Buffer.concat(chunks.map((chunk) => chunk.subarray(12)));
    expect((JSON.parse(joined.toString()) as { short_message: string }).short_message).toHaveLength(4000);
    const fields = { _large: 'x'.repeat(200_000) };
    expect(gelfDatagrams({ ...config, fields }, entry, 'host')).toEqual([]);
  });
});

describe('fluentd', () => {
  it('packs as the MessagePack specification says', () => {
    expect(pack(['a', 5, 300, { k: Buffer.from('v') }]).toString('hex')).toBe('94a16105ce0000012c81a16ba176');
    expect(pack(new EventTime(1, 2)).toString('hex')).toBe('d7000000000100000002');
    expect(pack('x'.repeat(40)).subarray(0, 2).toString('hex')).toBe('d928');
    expect(pack('x'.repeat(300)).subarray(0, 3).toString('hex')).toBe('da012c');
    expect(pack('x'.repeat(70_000)).subarray(0, 5).toString('hex')).toBe('db00011170');
    expect(
      pack(Array.from({ length: 16 }, () => 1))
        .subarray(0, 3)
        .toString('hex'),
    ).toBe('dc0010');
  });

  it('sends records of a batch under one tag', () => {
    const config: FluentdConfig = {
      ...{ kind: 'fluentd', tag: 't', fields: { container_id: 'c' }, requestAck: false, subSecondPrecision: true },
      ...{ address: { proto: 'tcp', host: 'h', port: 1 }, retryWaitMs: 1, maxRetries: 1 },
    };
    const seconds = Math.floor(Date.parse(entry.time) / 1000);
    const time = new EventTime(seconds, 123_456_789);
    const whole = { source: 'stdout', log: 'hello', container_id: 'c' };
    const partial = { partial_message: 'true', partial_id: 'p', partial_ordinal: '1', partial_last: 'false' };
    expect(forwardMessage(config, [entry, piece], 'ack')).toEqual(
      pack([
        't',
        [
          [time, whole],
          [time, { ...whole, source: 'stderr', ...partial }],
        ],
        { size: 2, chunk: 'ack' },
      ]),
    );
    expect(forwardMessage({ ...config, subSecondPrecision: false }, [entry])).toEqual(
      pack(['t', [[seconds, whole]], { size: 1 }]),
    );
  });
});

it('journald gets fields, with a length where they hold newlines', () => {
  const text = journalMessage({ kind: 'journald', fields: { CONTAINER_NAME: 'web', L: 'a\nb' } }, piece).toString();
  expect(text).toBe(
    [
      ...['MESSAGE=hello', 'PRIORITY=3', 'SYSLOG_TIMESTAMP=2026-01-02T03:04:05.123456789Z', 'CONTAINER_NAME=web'],
      ...['L', '\x03\0\0\0\0\0\0\0a\nb', 'CONTAINER_PARTIAL_MESSAGE=true', 'CONTAINER_PARTIAL_ID=p'],
      ...['CONTAINER_PARTIAL_ORDINAL=1', 'CONTAINER_PARTIAL_LAST=false', ''],
    ].join('\n'),
  );
});
