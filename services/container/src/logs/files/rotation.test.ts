import { existsSync, mkdtempSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { waitFor } from '@flotilla/testkit';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { LogBatch, LogSinkConfig } from '../log-config.js';
import { ENCODER_OUTPUT_BYTES } from './entry-encoder.js';
import { timeText } from './line-clock.js';
import { LiveLogs } from './live-logs.js';
import type { LogFile } from './log-file.js';
import { openLogFiles } from './open-log-files.js';
import { type LogReadRequest, readLog } from './log-file-reader.js';
import { HEADROOM_BYTES, LogFileWriter } from './log-file-writer.js';
import { formatOf } from './log-format.js';
import { findSince, findTail } from './place-search.js';

let directory: string;
let path: string;
let live: LiveLogs;

beforeEach(() => {
  directory = mkdtempSync(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'flotilla-log-'));
  path = join(directory, 'c.log');
  live = new LiveLogs();
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

const numbers = (from: number, to: number) =>
  Array.from({ length: to - from + 1 }, (_, index) => `${from + index}\n`).join('');

function write(writer: LogFileWriter, text: string): void {
  const bytes = Buffer.concat([Buffer.alloc(HEADROOM_BYTES), Buffer.from(text)]);
  writer.append(1, bytes, HEADROOM_BYTES, bytes.length);
  live.touch(path);
}

function names(): string[] {
  return readdirSync(directory)
    .filter((name) => !name.endsWith('.partial'))
    .sort();
}

describe.each(['json-file', 'local'] as const)('a rotated log of driver %s', (driver) => {
  const open = (options: Partial<LogSinkConfig> = {}): LogFileWriter =>
    new LogFileWriter({ driver, path, ...options }, true, Buffer.alloc(ENCODER_OUTPUT_BYTES));

  async function readBatches(options: Partial<LogReadRequest> = {}): Promise<LogBatch[]> {
    const request = {
      ...{ stdout: true, stderr: true, terminal: true, timestamps: false, details: false, follow: false },
      ...options,
    };
    const batches: LogBatch[] = [];
    const signal = new AbortController().signal;
    for await (const batch of readLog({ driver, path }, request, live, signal)) batches.push(batch);
    return batches;
  }

  async function readText(options: Partial<LogReadRequest> = {}): Promise<string> {
    return (await readBatches(options)).map(({ frames }) => Buffer.from(frames).toString()).join('');
  }

  it('is compressed, and read from any place all the same', async () => {
    const writer = open({ maxSizeBytes: 20_000, maxFiles: 4, compress: true });
    const positions: string[] = [];
    let last = 0;
    for (let from = 1; names().length < 4; from += 50) {
      last = from + 49;
      write(writer, numbers(from, last));
      if (from === 51) positions.push((await readBatches({ tail: 1 })).at(-1)?.position ?? '');
    }
    await waitFor(() => names().filter((name) => name.endsWith('.gz')).length === 3, { what: 'the compression' });
    expect(names()).toEqual(['c.log', 'c.log.1.gz', 'c.log.2.gz', 'c.log.3.gz']);
    expect(await readText()).toBe(numbers(1, last));
    for (const tail of [1, 60, last - 120, last, last + 5]) {
      expect(await readText({ tail })).toBe(numbers(Math.max(1, last - tail + 1), last));
    }
    expect(await readText({ position: positions[0] ?? '' })).toBe(numbers(101, last));
    const stamped = (await readText({ timestamps: true })).split('\n');
    const [time = '', number = ''] = (stamped[200] ?? '').split(' ');
    const since = BigInt(Date.parse(time)) * 1_000_000n + BigInt(time.slice(23, 29));
    expect(timeText(since)).toBe(time);
    expect(await readText({ since })).toBe(numbers(Number(number), last));
    expect(await readText({ until: since })).toBe(numbers(1, Number(number)));
    writer.close(true);
  });

  it('is followed while files rotate and are compressed', async () => {
    const writer = open({ maxSizeBytes: 10_000, maxFiles: 3, compress: true });
    live.open(path);
    write(writer, numbers(1, 100));
    const seen: string[] = [];
    const following = (async () => {
      const options = { stdout: true, stderr: true, terminal: true, timestamps: false, details: false };
      const signal = new AbortController().signal;
      for await (const { frames } of readLog({ driver, path }, { ...options, follow: true, tail: 50 }, live, signal)) {
        seen.push(Buffer.from(frames).toString());
      }
    })();
    for (let from = 101; from < 3000; from += 100) {
      write(writer, numbers(from, from + 99));
      await waitFor(() => seen.join('').endsWith(`\n${from + 99}\n`), { what: 'the lines' });
    }
    writer.close(true);
    live.close(path);
    await following;
    expect(seen.join('')).toBe(numbers(51, 3000));
  });

  it('loses nothing to a crash at any step of a rotation', async () => {
    let writer = open({ maxSizeBytes: 5000, maxFiles: 5 });
    let last = 0;
    while (names().length < 4) write(writer, numbers(last + 1, (last += 20)));
    writer.close(false);
    // What a rotation of `c.log`, `.1`, `.2`, `.3` leaves behind after each of its steps.
    const steps = [
      ['c.log.3', 'c.log.4'],
      ['c.log.2', 'c.log.3'],
      ['c.log.1', 'c.log.2'],
      ['c.log', 'c.log.1'],
    ] as const;
    writeFileSync(`${path}.next`, '');
    for (const [from, to] of steps) {
      renameSync(join(directory, from), join(directory, to));
      expect(await readText()).toBe(numbers(1, last));
      expect(await readText({ tail: last - 3 })).toBe(numbers(4, last));
      writer = open({ maxSizeBytes: 5000, maxFiles: 5 });
      expect(existsSync(`${path}.next`)).toBe(false);
      write(writer, numbers(last + 1, ++last));
      writer.close(false);
      expect(await readText()).toBe(numbers(1, last));
      if (from !== 'c.log') continue;
      expect(names()).toHaveLength(5);
    }
  });

  it('fills a gap that a crash left between its files', async () => {
    let writer = open({ maxSizeBytes: 5000, maxFiles: 4 });
    let last = 0;
    while (names().length < 3) write(writer, numbers(last + 1, (last += 20)));
    writer.close(false);
    renameSync(`${path}.2`, `${path}.3`);
    writer = open({ maxSizeBytes: 5000, maxFiles: 4 });
    while (names().length < 4) write(writer, numbers(last + 1, (last += 20)));
    expect(names()).toEqual(['c.log', 'c.log.1', 'c.log.2', 'c.log.3']);
    expect(await readText()).toBe(numbers(1, last));
    writer.close(true);
  });

  it('ends a compression that a crash interrupted', async () => {
    let writer = open({ maxSizeBytes: 5000, maxFiles: 3 });
    let last = 0;
    while (names().length < 2) write(writer, numbers(last + 1, (last += 20)));
    writer.close(false);
    writeFileSync(`${path}.compressing`, 'half');
    writeFileSync(`${path}.1.gz`, 'whole, but its source was not removed');
    writer = open({ maxSizeBytes: 5000, maxFiles: 3, compress: true });
    await waitFor(() => names().join() === 'c.log,c.log.1.gz', { what: 'the compression' });
    expect(await readText()).toBe(numbers(1, last));
    writer.close(true);
  });

  it('is searched by reading little of it', async () => {
    const writer = open();
    for (let from = 1; from < 300_000; from += 2000) write(writer, numbers(from, from + 1999));
    writer.close(true);
    const files = openLogFiles(path);
    let bytes = 0;
    const counted = files.map((file): LogFile => ({
      inode: file.inode,
      isCompressed: false,
      size: () => file.size(),
      close: () => file.close(),
      read: async (...args) => {
        const got = await file.read(...args);
        bytes += got;
        return got;
      },
    }));
    const size = files[0]?.size() ?? 0;
    expect(size).toBeGreaterThan(9_000_000);
    const tail = await findTail(counted, 100);
    expect(size - tail.offset).toBeLessThan(10_000);
    expect(bytes).toBeLessThanOrEqual(64 * 1024);
    bytes = 0;
    const stamped = (await readText({ tail: 150_000, timestamps: true })).slice(0, 60).split('\n')[0] ?? '';
    const found = await findSince(counted, stamped.slice(0, 30), formatOf({ driver }));
    expect(bytes).toBeLessThan(128 * 1024);
    const since = await readText({ position: `${counted[0]?.inode ?? ''}:${found.offset}:` });
    expect(since.endsWith('300000\n')).toBe(true);
    expect(found.offset).toBeGreaterThan(size / 2 - 200_000);
    for (const file of files) file.close();
  });
});
