import { closeSync, mkdtempSync, readSync, readdirSync, rmSync, symlinkSync, writeFileSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ExchangeFifo, FifoReader, openExchangeFifo, sweepExchangeFifos, writeFifo } from './exchange-fifo.js';

const never = new AbortController().signal;
const mebibyte = 1 << 20;

describe('a FIFO in the exchange directory', () => {
  let directory: string;
  beforeAll(() => {
    directory = mkdtempSync(join(tmpdir(), 'exchange-'));
  });
  afterAll(() => rmSync(directory, { recursive: true }));

  const make = (end: 'read' | 'write'): ExchangeFifo => {
    const fifo = ExchangeFifo.make(directory, end);
    if (fifo === undefined) throw new Error('no FIFO');
    return fifo;
  };
  const open = (name: string, end: 'read' | 'write'): number => {
    const fd = openExchangeFifo(directory, name, end);
    if (fd === undefined) throw new Error('not found');
    return fd;
  };
  async function* parts(count: number): AsyncGenerator<Buffer> {
    for (let at = 0; at < count; at += 1) yield await Promise.resolve(Buffer.alloc(mebibyte, at));
  }

  it.each(['read', 'write'] as const)('passes bytes whose maker will %s, and its name is gone', async (end) => {
    using fifo = make(end);
    const other = open(fifo.name, end === 'read' ? 'write' : 'read');
    expect(readdirSync(directory)).toEqual([]);
    const [readFd, writeFd] = end === 'read' ? [fifo.take(), other] : [other, fifo.take()];
    const written = writeFifo(writeFd, parts(5), never);
    let sum = 0;
    for await (const chunk of new FifoReader(readFd, never)) sum += chunk.reduce((a, b) => a + b, 0);
    expect(sum).toBe(mebibyte * (1 + 2 + 3 + 4));
    expect(await written).toBe(5 * mebibyte);
  });

  it('shows a reader that comes first no end before the writer has begun', async () => {
    using fifo = make('write');
    const reader = new FifoReader(open(fifo.name, 'read'), never);
    const first = reader.read();
    const writeFd = fifo.take();
    writeSync(writeFd, 'x');
    expect((await first)?.toString()).toBe('x');
    closeSync(writeFd);
    expect(await reader.read()).toBeUndefined();
    reader.close();
  });

  it('is not read ahead: in between others read from the descriptor', async () => {
    using fifo = make('write');
    const reader = new FifoReader(open(fifo.name, 'read'), never);
    const writeFd = fifo.take();
    writeSync(writeFd, 'first');
    expect((await reader.read())?.toString()).toBe('first');
    writeSync(writeFd, 'second third');
    const bytes = Buffer.alloc(7);
    readSync(reader.fd, bytes);
    expect(bytes.toString()).toBe('second ');
    expect((await reader.read())?.toString()).toBe('third');
    closeSync(writeFd);
    expect(await reader.read()).toBeUndefined();
    reader.close();
  });

  it('tells the writer when nobody reads any more', async () => {
    using fifo = make('write');
    closeSync(open(fifo.name, 'read'));
    expect(await writeFifo(fifo.take(), parts(1), never)).toBeUndefined();
  });

  it('ends with the signal, on both sides', async () => {
    using fifo = make('write');
    const stop = new AbortController();
    const reader = new FifoReader(open(fifo.name, 'read'), stop.signal);
    // More than it holds: the writer waits for a reader that does not come.
    const written = writeFifo(fifo.take(), parts(3), stop.signal);
    const told = expect(written).rejects.toThrow('enough');
    stop.abort(new Error('enough'));
    await told;
    await expect(reader.read()).rejects.toThrow('enough');
  });

  it('fails with the source and closes', async () => {
    using fifo = make('write');
    const reader = new FifoReader(open(fifo.name, 'read'), never);
    async function* broken(): AsyncGenerator<Buffer> {
      yield await Promise.resolve(Buffer.from('x'));
      throw new Error('broken');
    }
    await expect(writeFifo(fifo.take(), broken(), never)).rejects.toThrow('broken');
    let rest = '';
    for await (const chunk of reader) rest += chunk.toString();
    expect(rest).toBe('x');
  });

  it('is opened only by the name of one, and only if it is one', () => {
    const name = `fifo-${crypto.randomUUID()}`;
    expect(openExchangeFifo(directory, name, 'read')).toBeUndefined();
    writeFileSync(join(directory, name), 'secret');
    expect(openExchangeFifo(directory, name, 'read')).toBeUndefined();
    rmSync(join(directory, name));
    using fifo = make('write');
    symlinkSync(fifo.name, join(directory, name));
    expect(openExchangeFifo(directory, name, 'read')).toBeUndefined();
    expect(openExchangeFifo(join(directory, 'x'), `../${fifo.name}`, 'read')).toBeUndefined();
    sweepExchangeFifos(directory);
    expect(readdirSync(directory)).toEqual([]);
    expect(ExchangeFifo.make(join(directory, 'missing'), 'read')).toBeUndefined();
    expect(() => sweepExchangeFifos(join(directory, 'missing'))).not.toThrow();
  });
});
