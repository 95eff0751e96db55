import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { waitFor } from '@flotilla/testkit';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { LogBatch, LogSinkConfig } from '../log-config.js';
import { ENCODER_OUTPUT_BYTES, type OutputStream } from './entry-encoder.js';
import { LiveLogs } from './live-logs.js';
import { type LogReadRequest, readLog } from './log-file-reader.js';
import { HEADROOM_BYTES, LogFileWriter } from './log-file-writer.js';
import { formatOf } from './log-format.js';
import { endOfLog } from './position.js';

const READ: LogReadRequest = {
  stdout: true,
  stderr: true,
  terminal: true,
  timestamps: false,
  details: false,
  follow: false,
};

const never = new AbortController().signal;

let directory: string;
let path: string;
let live: LiveLogs;

beforeEach(() => {
  directory = mkdtempSync(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'flotilla-log-'));
  path = join(directory, 'c-json.log');
  live = new LiveLogs();
});

afterEach(() => rmSync(directory, { recursive: true, force: true }));

function openWriter(options: Partial<LogSinkConfig> = {}, resume = false): LogFileWriter {
  const config: LogSinkConfig = { driver: 'json-file', path, ...options };
  return new LogFileWriter(config, resume, Buffer.alloc(ENCODER_OUTPUT_BYTES));
}

function write(writer: LogFileWriter, text: string, stream: OutputStream = 1): void {
  const bytes = Buffer.concat([Buffer.alloc(HEADROOM_BYTES), Buffer.from(text)]);
  writer.append(stream, bytes, HEADROOM_BYTES, bytes.length);
  live.touch(path);
}

const numbers = (from: number, to: number) =>
  Array.from({ length: to - from + 1 }, (_, index) => `${from + index}\n`).join('');

async function readText(options: Partial<LogReadRequest> = {}): Promise<string> {
  const batches = await readBatches(options);
  return batches.map(({ frames }) => Buffer.from(frames).toString()).join('');
}

async function readBatches(options: Partial<LogReadRequest> = {}): Promise<LogBatch[]> {
  const batches: LogBatch[] = [];
  const signal = new AbortController().signal;
  for await (const batch of readLog({ driver: 'json-file', path }, { ...READ, ...options }, live, signal))
    batches.push(batch);
  return batches;
}

describe('a json-file log', () => {
  it('is empty before it exists', async () => {
    expect(await readText()).toBe('');
    expect(await readText({ tail: 10 })).toBe('');
  });

  it('gives everything, or its tail', async () => {
    const writer = openWriter();
    write(writer, numbers(1, 5000));
    expect(await readText()).toBe(numbers(1, 5000));
    expect(await readText({ tail: 0 })).toBe('');
    expect(await readText({ tail: 1 })).toBe('5000\n');
    expect(await readText({ tail: 3000 })).toBe(numbers(2001, 5000));
    expect(await readText({ tail: 5000 })).toBe(numbers(1, 5000));
    expect(await readText({ tail: 9999 })).toBe(numbers(1, 5000));
    writer.close(true);
  });

  it.each([
    ['a piece of an entry', Buffer.from('{"log":"to')],
    ['zeros', Buffer.alloc(300_000)],
    ['a piece of an entry and zeros', Buffer.concat([Buffer.from('{"log":"to'), Buffer.alloc(300_000)])],
  ])('is read, and goes on, after a power failure that left %s at its end', async (_what, rest) => {
    const first = openWriter();
    write(first, numbers(1, 10));
    first.close(true);
    writeFileSync(path, rest, { flag: 'a' });
    expect(await readText()).toBe(numbers(1, 10));
    expect(await readText({ tail: 2 })).toBe(numbers(9, 10));
    write(openWriter(), numbers(11, 12));
    expect(await readText()).toBe(numbers(1, 12));
    expect(await readText({ tail: 3 })).toBe(numbers(10, 12));
  });

  it('begins anew after a power failure that left only zeros', async () => {
    writeFileSync(path, Buffer.alloc(300_000));
    expect(await readText()).toBe('');
    expect(await readText({ tail: 2 })).toBe('');
    write(openWriter(), numbers(1, 2));
    expect(await readText()).toBe(numbers(1, 2));
  });

  it('is read over its rotated files', async () => {
    const writer = openWriter({ maxSizeBytes: 10_000, maxFiles: 3 });
    write(writer, numbers(1, 200));
    write(writer, numbers(201, 600));
    expect(readFileSync(`${path}.1`).length).toBeGreaterThanOrEqual(10_000);
    expect(readFileSync(`${path}.1`).length).toBeLessThan(10_200);
    expect(existsSync(`${path}.3`)).toBe(false);
    const text = await readText();
    expect(text.endsWith('\n599\n600\n')).toBe(true);
    const first = Number(text.split('\n')[0]);
    expect(first).toBeGreaterThan(1);
    expect(text).toBe(numbers(first, 600));
    expect(await readText({ tail: 200 })).toBe(numbers(401, 600));
    writer.close(true);
  });

  it('goes on after a position, in a rotated file too', async () => {
    const writer = openWriter({ maxSizeBytes: 50_000, maxFiles: 3 });
    write(writer, numbers(1, 300));
    const { position } = (await readBatches()).at(-1) ?? { position: '' };
    write(writer, numbers(301, 1000));
    expect(existsSync(`${path}.1`)).toBe(true);
    expect(await readText({ position })).toBe(numbers(301, 1000));
    writer.close(true);
  });

  it('goes on after a position whose file is gone or is another one now', async () => {
    const writer = openWriter();
    write(writer, numbers(1, 10));
    const { position } = (await readBatches({ tail: 7, stdout: true })).at(-1) ?? { position: '' };
    const log = readFileSync(path);
    writer.close(true);
    write(openWriter(), numbers(11, 12));
    const all = readFileSync(path);
    rmSync(path);
    writeFileSync(path, `{"log":"older\\n","stream":"stdout","time":"2001-01-01T00:00:00Z"}\n`);
    writeFileSync(path, all, { flag: 'a' });
    expect(log.length).toBeLessThan(all.length);
    expect(await readText({ position })).toBe(numbers(11, 12));
    expect(await readText({ position: position.replace(/^\d+/, '1') })).toBe(numbers(11, 12));
    expect(await readText({ position: 'nonsense' })).toBe(`older\n${numbers(1, 12)}`);
  });

  it('is followed over rotations until its end', async () => {
    const writer = openWriter({ maxSizeBytes: 20_000, maxFiles: 2 });
    live.open(path);
    write(writer, numbers(1, 100));
    let text = '';
    const reading = (async () => {
      const request = { ...READ, follow: true, tail: 50 };
      for await (const { frames } of readLog({ driver: 'json-file', path }, request, live, never)) {
        text += Buffer.from(frames).toString();
      }
    })();
    for (let next = 101; next < 1000; next += 100) {
      // Whoever falls behind by more than there are files loses lines.
      await waitFor(() => text.endsWith(`${next - 1}\n`), { what: 'the lines before', intervalMs: 1 });
      write(writer, numbers(next, next + 99));
    }
    writer.close(true);
    live.close(path);
    await reading;
    expect(text).toBe(numbers(51, 1000));
  });

  it('is not followed when nobody writes it', async () => {
    write(openWriter(), 'x\n');
    expect(await readText({ follow: true })).toBe('x\n');
  });

  it('leaves a follower that is cancelled', async () => {
    live.open(path);
    write(openWriter(), 'x\n');
    const leave = new AbortController();
    let bytes = 0;
    const reading = (async () => {
      for await (const batch of readLog({ driver: 'json-file', path }, { ...READ, follow: true }, live, leave.signal)) {
        bytes += batch.frames.length;
      }
    })();
    await waitFor(() => bytes > 0, { what: 'the line' });
    leave.abort();
    live.touch(path);
    await reading;
    expect(bytes).toBe('x\n'.length);
  });

  it('is read up to a place', async () => {
    const writer = openWriter();
    write(writer, numbers(1, 10));
    const stopAt = endOfLog(path, formatOf({ driver: 'json-file' }));
    write(writer, numbers(11, 20));
    expect(await readText({ stopAt })).toBe(numbers(1, 10));
    writer.close(true);
  });

  it('is filtered by time', async () => {
    const writer = openWriter();
    write(writer, 'early\n');
    await new Promise((resolve) => setTimeout(resolve, 10));
    const between = BigInt(Date.now()) * 1_000_000n;
    await new Promise((resolve) => setTimeout(resolve, 10));
    write(writer, 'late\n');
    expect(await readText({ since: between })).toBe('late\n');
    expect(await readText({ until: between })).toBe('early\n');
    writer.close(true);
  });

  it('gives large batches and positions between them', async () => {
    const writer = openWriter();
    for (let from = 1; from < 100_000; from += 1000) write(writer, numbers(from, from + 999));
    const batches = await readBatches();
    expect(batches.length).toBeLessThan(6);
    const head = Buffer.from(batches[0]?.frames ?? []).toString();
    expect(head + (await readText({ position: batches[0]?.position ?? '' }))).toBe(numbers(1, 100_000));
    writer.close(true);
  });
});

describe('the beginning of a line', () => {
  const entries = () =>
    readFileSync(path, 'utf8')
      .split('\n')
      .slice(0, -1)
      .map((line) => (JSON.parse(line) as { log: string }).log);

  it('waits for its end', () => {
    const writer = openWriter();
    write(writer, 'a');
    write(writer, 'other\n', 2);
    write(writer, 'b');
    expect(entries()).toEqual(['other\n']);
    write(writer, 'c\nd');
    expect(entries()).toEqual(['other\n', 'abc\n']);
    writer.end(1);
    expect(entries()).toEqual(['other\n', 'abc\n', 'd']);
  });

  it('outlives the process', () => {
    write(openWriter(), 'x\nhalf ');
    const next = openWriter({}, true);
    write(next, 'line\n');
    expect(entries()).toEqual(['x\n', 'half line\n']);
    next.close(true);
    expect(existsSync(`${path}.partial`)).toBe(false);
  });

  it('becomes an entry of the earlier run when another run begins', () => {
    write(openWriter(), 'x\nhalf ');
    write(openWriter(), 'line\n');
    expect(entries()).toEqual(['x\n', 'half ', 'line\n']);
  });

  it('is not taken for another when the log has grown since it was kept', () => {
    write(openWriter(), 'half');
    writeFileSync(path, '{"log":"half whole\\n","stream":"stdout","time":"2026-01-01T00:00:00.1Z"}\n', { flag: 'a' });
    write(openWriter({}, true), 'next\n');
    expect(entries()).toEqual(['half whole\n', 'next\n']);
  });

  it('a torn entry at the end of the file is cut off', () => {
    write(openWriter(), 'x\n');
    writeFileSync(path, '{"log":"to', { flag: 'a' });
    write(openWriter({}, true), 'y\n');
    expect(entries()).toEqual(['x\n', 'y\n']);
  });

  it('grows into entries of 16 KiB', () => {
    const writer = openWriter();
    for (let index = 0; index < 5; index++) write(writer, 'z'.repeat(10_000));
    write(writer, '\n');
    expect(entries().map((entry) => entry.length)).toEqual([16384, 16384, 16384, 50_000 - 3 * 16384 + 1]);
  });
});
