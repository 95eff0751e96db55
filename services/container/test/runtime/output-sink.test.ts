import { closeSync, constants, openSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { silentLogger } from '@flotilla/log';
import { hasCode, mkfifo } from '@flotilla/sys';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { LogThread, type OutputSink } from '../../src/logs/log-thread.js';
import { makeTestRoot, removeTestRoot } from './bundle.js';

describe('the output of a run on its way to attachments', () => {
  let root: string;
  let worker: LogThread;
  let count = 0;

  beforeAll(() => {
    root = makeTestRoot();
    worker = new LogThread(silentLogger(), (error) => expect.unreachable(error.message));
  });
  afterAll(async () => {
    await worker.close();
    removeTestRoot(root);
  });

  /** A sink that reads a FIFO, and the end that a process would write to; it does not block. */
  async function openSink(): Promise<{ sink: OutputSink; writeFd: number }> {
    const path = join(root, `fifo-${String(++count)}`);
    mkfifo(path, 0o600);
    const stdoutFd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
    const writeFd = openSync(path, constants.O_WRONLY | constants.O_NONBLOCK);
    const log = { driver: 'none', path: '' } as const;
    const sink = await worker.openSink({ log, resume: false, terminal: true, stdoutFd, stderrFd: undefined });
    return { sink, writeFd };
  }

  /** The worker has been through its event loop. */
  async function workerTurn(): Promise<void> {
    const { sink, writeFd } = await openSink();
    await sink.close(true);
    closeSync(writeFd);
  }

  it('begins with the first byte, however late the thread hears of the attachment', async () => {
    const { sink, writeFd } = await openSink();
    writeSync(writeFd, 'first');
    for (let turn = 0; turn < 3; turn++) await workerTurn();
    const received: string[] = [];
    sink.attach({
      onAttached: () => undefined,
      onOutput: (bytes, consumed) => {
        received.push(Buffer.from(bytes).toString());
        consumed();
      },
    });
    sink.begin();
    closeSync(writeFd);
    sink.finish();
    await sink.ended;
    expect(received).toEqual(['first']);
    await sink.close(true);
  });

  it('stops for an attachment that consumes nothing; what is left at the end of the process comes all the same', async () => {
    const { sink, writeFd } = await openSink();
    let received = 0;
    sink.attach({
      onAttached: () => undefined,
      onOutput: (bytes) => {
        received += bytes.length;
      },
    });
    sink.begin();
    const block = Buffer.alloc(64 * 1024, 'x');
    let written = 0;
    for (let idleTurns = 0; idleTurns < 20;) {
      try {
        written += writeSync(writeFd, block);
        idleTurns = 0;
      } catch (error) {
        if (!hasCode(error, 'EAGAIN')) throw error;
        idleTurns++;
        await workerTurn();
      }
    }
    expect(received).toBeGreaterThanOrEqual(1024 * 1024);
    expect(received).toBeLessThan(written);
    closeSync(writeFd);
    sink.finish();
    await sink.ended;
    expect(received).toBe(written);
    await sink.close(true);
  });

  it('is given back unread when the run never begins', async () => {
    const { sink, writeFd } = await openSink();
    await sink.close(true);
    expect(() => writeSync(writeFd, 'x')).toThrow('EPIPE');
    closeSync(writeFd);
  });
});
