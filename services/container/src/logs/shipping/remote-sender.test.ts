import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { makeCertificates, receiveDatagrams, receiveStreams, receiveUnixDatagrams, waitFor } from '@flotilla/testkit';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { ENCODER_OUTPUT_BYTES } from '../files/entry-encoder.js';
import { LiveLogs } from '../files/live-logs.js';
import { HEADROOM_BYTES, LogFileWriter } from '../files/log-file-writer.js';
import type { LogSinkConfig } from '../log-config.js';
import type { LoggedContainer } from '../options/log-attributes.js';
import { sinkConfig } from '../options/sink-config.js';
import { RemoteSender } from './remote-sender.js';

const container: LoggedContainer = {
  ...{ id: 'c'.repeat(64), name: 'web', imageId: 'sha256:1', imageName: 'i', createdAt: '' },
  ...{ command: ['x'], labels: {}, env: [] },
};

let directory: string;
let live: LiveLogs;
let opened: Logged[];

beforeEach(() => {
  directory = mkdtempSync(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'flotilla-log-'));
  live = new LiveLogs();
  opened = [];
});
afterEach(async () => {
  for (const logged of opened) await logged.end();
  rmSync(directory, { recursive: true, force: true });
});

/** A log that is sent, as a container's output is. */
class Logged {
  readonly sink: LogSinkConfig;
  readonly writer: LogFileWriter;
  readonly sender: RemoteSender;
  lostBytes = 0;
  troubles: string[] = [];

  constructor(
    driver: 'syslog' | 'gelf' | 'fluentd',
    options: Record<string, string>,
    limits: Partial<LogSinkConfig> = {},
  ) {
    this.sink = { ...sinkConfig(directory, driver, options, container), ...limits };
    if (this.sink.remote === undefined) throw new Error('sent nowhere');
    this.writer = new LogFileWriter(this.sink, true, Buffer.alloc(ENCODER_OUTPUT_BYTES));
    live.open(this.sink.path);
    this.sender = new RemoteSender(this.sink, this.sink.remote, live, {
      writtenBytes: () => this.writer.writtenBytes,
      onLoss: (bytes) => (this.lostBytes += bytes),
      onTrouble: (reason) => this.troubles.push(reason),
    });
    opened.push(this);
  }

  write(text: string): void {
    for (let at = 0; at < text.length; at += 60_000) {
      const bytes = Buffer.concat([Buffer.alloc(HEADROOM_BYTES), Buffer.from(text.slice(at, at + 60_000))]);
      this.writer.append(1, bytes, HEADROOM_BYTES, bytes.length);
    }
    live.touch(this.sink.path);
  }

  /** The process is gone: nothing that it knew is left but files. */
  async end(): Promise<void> {
    this.sender.stop();
    await this.sender.ended;
    if (!opened.includes(this)) return;
    opened = opened.filter((other) => other !== this);
    this.writer.close(false);
    live.close(this.sink.path);
  }
}

const numbers = (from: number, to: number) =>
  Array.from({ length: to - from + 1 }, (_, index) => `n${from + index}.\n`).join('');
const received = (text: string): number[] => [...text.matchAll(/n(\d+)\./g)].map(([, number]) => Number(number));
const counted = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, index) => from + index);

it('sends over TCP what is written, and after a restart what was not sent yet', async () => {
  await using receiver = await receiveStreams();
  const options = { 'syslog-address': `tcp://127.0.0.1:${receiver.port}`, 'syslog-format': 'rfc5424' };
  const first = new Logged('syslog', options);
  first.write(numbers(1, 1000));
  await waitFor(() => received(receiver.text()).length === 1000, { what: 'the first lines' });
  await first.end();
  // Nobody sends what is written meanwhile.
  const between = new LogFileWriter(first.sink, true, Buffer.alloc(ENCODER_OUTPUT_BYTES));
  const bytes = Buffer.concat([Buffer.alloc(HEADROOM_BYTES), Buffer.from(numbers(1001, 1010))]);
  between.append(1, bytes, HEADROOM_BYTES, bytes.length);
  between.close(false);
  const second = new Logged('syslog', options);
  second.write(numbers(1011, 1020));
  await waitFor(() => received(receiver.text()).includes(1020), { what: 'the last line' });
  expect(received(receiver.text())).toEqual(counted(1, 1020));
  expect(receiver.text()).toMatch(/^<30>1 \S+Z \S+ docker\/cccccccccccc \d+ docker\/cccccccccccc - n1\.\n/);
});

it('sends over TLS', async () => {
  const { ca, server } = makeCertificates(join(directory, 'tls'), '127.0.0.1');
  const { readFileSync } = await import('node:fs');
  const tls = { cert: readFileSync(server.cert), key: readFileSync(server.key) };
  await using receiver = await receiveStreams({ tls });
  const address = { 'syslog-address': `tcp+tls://127.0.0.1:${receiver.port}` };
  const distrustful = new Logged('syslog', address);
  distrustful.write('secret\n');
  await waitFor(() => distrustful.troubles.length === 1, { what: 'the refusal' });
  await distrustful.end();
  expect(receiver.text()).toBe('');
  new Logged('syslog', { ...address, 'syslog-tls-ca-cert': ca }).write('more\n');
  await waitFor(() => receiver.text().endsWith('more\n'), { what: 'both lines' });
  expect(receiver.text()).toContain(': secret\n');
});

it.each(['unix', 'unixgram'] as const)('sends to a socket of kind %s', async (kind) => {
  const path = join(directory, 'log.sock');
  await using receiver = kind === 'unix' ? await receiveStreams({ listen: { path } }) : receiveUnixDatagrams(path);
  // More than the socket's queue holds.
  new Logged('syslog', { 'syslog-address': `${kind}://${path}` }).write(numbers(1, 3000));
  await waitFor(() => received(receiver.text()).length === 3000, { what: 'all lines' });
  expect(received(receiver.text())).toEqual(counted(1, 3000));
});

it('sends over UDP', async () => {
  await using receiver = await receiveDatagrams();
  const options = { 'gelf-address': `udp://127.0.0.1:${receiver.port}`, 'gelf-compression-type': 'none' };
  new Logged('gelf', options).write(numbers(1, 20));
  await waitFor(() => receiver.pieces.length === 20, { what: 'all datagrams' });
  expect(JSON.parse(receiver.pieces[0]?.toString() ?? '')).toMatchObject({
    short_message: 'n1.',
    _container_name: 'web',
  });
});

it('sends again what was not acknowledged', async () => {
  let answers = 0;
  await using receiver = await receiveStreams({
    answer: (piece, socket) => {
      // The first message is taken and not acknowledged.
      if (answers++ === 0) socket.destroy();
      else socket.write(Buffer.concat([Buffer.from([0x81]), Buffer.from('\xa3ack', 'latin1'), chunkOf(piece)]));
    },
  });
  const address = `127.0.0.1:${receiver.port}`;
  const logged = new Logged('fluentd', {
    ...{ 'fluentd-address': address, 'fluentd-request-ack': 'true', 'fluentd-retry-wait': '1ms' },
  });
  logged.write('once\n');
  await waitFor(() => receiver.text().split('once').length === 3, { what: 'the second attempt' });
  logged.write('twice\n');
  await waitFor(() => receiver.text().includes('twice'), { what: 'the next line' });
  expect(receiver.text().split('once')).toHaveLength(3);
});

/** The packed value that follows the name `chunk`. */
function chunkOf(message: Buffer): Buffer {
  return message.subarray(message.indexOf('\xa5chunk', 0, 'latin1') + 6);
}

it('keeps what a dead receiver did not take, within the files, and counts the rest', async () => {
  const path = join(directory, 'log.sock');
  const options = { 'fluentd-address': `unix://${path}`, 'fluentd-retry-wait': '10ms' };
  const logged = new Logged('fluentd', options, { maxSizeBytes: 50_000, maxFiles: 3, compress: true });
  logged.write(numbers(1, 100));
  await waitFor(() => logged.troubles.length === 1, { what: 'the failure' });
  for (let from = 101; from <= 10_000; from += 100) logged.write(numbers(from, from + 99));
  expect(logged.lostBytes).toBe(0);
  await using receiver = await receiveStreams({ listen: { path } });
  await waitFor(() => received(receiver.text()).includes(10_000), { what: 'the last line' });
  const seen = received(receiver.text());
  expect(seen).toEqual([...new Set(seen)].sort((a, b) => a - b));
  const missing = counted(1, 10_000).filter((number) => !seen.includes(number));
  expect(missing.length).toBeGreaterThan(0);
  const entryBytes = (number: number): number => `n${number}.`.length + 32;
  expect(logged.lostBytes).toBe(missing.reduce((sum, number) => sum + entryBytes(number), 0));
});

it('lets no more wait than it may, and keeps the newest', async () => {
  const path = join(directory, 'log.sock');
  const options = { 'fluentd-address': `unix://${path}`, 'fluentd-retry-wait': '10ms', mode: 'non-blocking' };
  const logged = new Logged('fluentd', { ...options, 'max-buffer-size': '20k' });
  logged.write(numbers(1, 5000));
  await using receiver = await receiveStreams({ listen: { path } });
  await waitFor(() => received(receiver.text()).includes(5000), { what: 'the last line' });
  const seen = received(receiver.text());
  expect(seen).toEqual(counted(seen[0] ?? 0, 5000));
  expect(seen.length).toBeGreaterThan(400);
  expect(seen.length).toBeLessThan(600);
  expect(logged.lostBytes).toBe(counted(1, (seen[0] ?? 0) - 1).reduce((sum, n) => sum + `n${n}.`.length + 32, 0));
});

it('gives up after as many attempts as it may make', async () => {
  const path = join(directory, 'log.sock');
  const options = { 'fluentd-address': `unix://${path}`, 'fluentd-retry-wait': '1ms', 'fluentd-max-retries': '2' };
  const logged = new Logged('fluentd', options);
  logged.write(numbers(1, 3));
  await waitFor(() => logged.lostBytes > 0, { what: 'the loss' });
  expect(logged.lostBytes).toBe(3 * 35);
});

it('tells pieces of long lines', async () => {
  await using receiver = await receiveStreams();
  const logged = new Logged('fluentd', { 'fluentd-address': `127.0.0.1:${receiver.port}` });
  logged.write(`${'x'.repeat(40_000)}\nshort\n`);
  await waitFor(() => receiver.text().includes('short'), { what: 'the lines' });
  const text = receiver.text();
  expect([...text.matchAll(/partial_ordinal.(\d)/gs)].map(([, ordinal]) => ordinal)).toEqual(['1', '2', '3']);
  expect([...text.matchAll(/partial_last.(false|true)/gs)].map(([, last]) => last)).toEqual(['false', 'false', 'true']);
  expect(new Set([...text.matchAll(/partial_id..([0-9a-f]{64})/gs)].map(([, id]) => id)).size).toBe(1);
});

it('does not wait for a receiver that takes nothing', async () => {
  await using receiver = await receiveStreams({ isDeaf: true });
  const logged = new Logged('syslog', { 'syslog-address': `tcp://127.0.0.1:${receiver.port}` });
  for (let round = 0; round < 40; round++) logged.write(`${'x'.repeat(1000)}\n`.repeat(500));
  expect(logged.writer.writtenBytes).toBeGreaterThan(20_000_000);
  await logged.end();
});
