import { once } from 'node:events';
import { closeSync } from 'node:fs';
import { Socket } from 'node:net';
import type { Worker } from 'node:worker_threads';
import { EngineError, cancelled, internal } from '@flotilla/errors';
import { WorkerPool, hasCode, pipe2, setPipeSize } from '@flotilla/sys';
import pLimit from 'p-limit';
import type { ArchiveJob, ArchiveReply, PathInfo, ReadJob, StatJob, WriteJob } from './archive-jobs.js';

/** Each takes 10 MiB, and may wait as long as its client does. */
const maxThreads = 16;
const pipeBytes = 1 << 20;

type Wanted<J> = Omit<J, 'op' | 'stop' | 'inputFd' | 'outputFd'>;

/**
 * The threads that read and write in containers' root file systems: started when needed, gone when idle for ten seconds.
 * Data passes through pipes of 1 MiB, so that nobody gets ahead of a slow client, disk or container.
 *
 * All calls end soon after their signal; then nothing of the container is open or mounted any more. The service's thread
 * pool has been started.
 */
export class ArchiveThreads implements AsyncDisposable {
  readonly #limit = pLimit(maxThreads);
  readonly #pool = new WorkerPool('container-archive-worker', import.meta.url);

  /** @throws EngineError `notFound` (`noSuchPath`), `invalidArgument`, `unavailable` when a container that ran has ended. */
  async stat(job: Wanted<StatJob>, signal: AbortSignal): Promise<PathInfo> {
    let found: PathInfo | undefined;
    await this.#run({ ...job, op: 'stat', stop: newStop() }, signal, (info) => (found = info));
    if (found === undefined) throw internal('a path was not looked at');
    return found;
  }

  /** What the path is, then its tar. @throws EngineError as `stat`. */
  async *read(job: Wanted<ReadJob>, signal: AbortSignal): AsyncGenerator<PathInfo | Buffer> {
    const { readFd, writeFd } = largePipe();
    const stop = newStop();
    const output = new Socket({ fd: readFd, readable: true, writable: false });
    const halt = (): void => {
      Atomics.store(stop, 0, 1);
      output.destroy();
    };
    signal.addEventListener('abort', halt, { once: true });
    let tell: (info: PathInfo | undefined) => void = () => undefined;
    const found = new Promise<PathInfo | undefined>((resolve) => (tell = resolve));
    const packing = this.#run({ ...job, op: 'read', outputFd: writeFd, stop }, signal, tell).then(
      () => undefined,
      (error: unknown) => ({ error }),
    );
    void packing.then((failure) => {
      tell(undefined);
      // Also when the thread died and left its end of the pipe open.
      if (failure !== undefined) halt();
    });
    if (signal.aborted) halt();
    try {
      const info = await found;
      if (info !== undefined) yield info;
      for await (const bytes of output) yield bytes as Buffer;
      const failure = await packing;
      if (failure !== undefined) throw failure.error;
    } catch (error) {
      if (signal.aborted) throw cancelled('cancelled', { cause: error });
      halt();
      throw (await packing)?.error ?? error;
    } finally {
      signal.removeEventListener('abort', halt);
      halt();
      await packing;
    }
  }

  /** Unpack a plain tar. @throws EngineError as `stat`; `permissionDenied`; what is wrong with the archive or the disk. */
  async write(job: Wanted<WriteJob>, source: AsyncIterable<Buffer>, signal: AbortSignal): Promise<void> {
    const { readFd, writeFd } = largePipe();
    const stop = newStop();
    const input = new Socket({ fd: writeFd, readable: false, writable: true });
    // What it says when nobody reads on is of no interest: the thread has the reason.
    input.on('error', () => undefined);
    const halt = (): void => {
      Atomics.store(stop, 0, 1);
      input.destroy();
    };
    signal.addEventListener('abort', halt, { once: true });
    if (signal.aborted) halt();
    let enter = (): void => undefined;
    const entered = new Promise<void>((resolve) => (enter = resolve));
    const unpacking = this.#run({ ...job, op: 'write', inputFd: readFd, stop }, signal, () => enter()).then(
      () => undefined,
      (error: unknown) => ({ error }),
    );
    try {
      // Until the directory is found nothing of the source is taken.
      const feeding = entered
        .then(() => feed(input, source))
        .then(
          () => undefined,
          (error: unknown) => {
            halt();
            return { error };
          },
        );
      // A thread that failed asks for no more: the source is left where it is, whatever it waits for.
      const [fed, failure] = await Promise.all([
        Promise.race([feeding, unpacking.then((outcome) => (outcome === undefined ? feeding : undefined))]),
        unpacking,
      ]);
      if (signal.aborted) throw cancelled('cancelled');
      if (fed !== undefined) throw fed.error;
      if (failure !== undefined) throw failure.error;
    } finally {
      signal.removeEventListener('abort', halt);
      halt();
      await unpacking;
    }
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#pool[Symbol.asyncDispose]();
  }

  #run(job: ArchiveJob, signal: AbortSignal, onFound?: (info: PathInfo) => void): Promise<void> {
    return this.#limit(async () => {
      const worker = this.#takeFor(job, signal);
      try {
        await work(worker, job, onFound);
      } finally {
        this.#pool.rest(worker);
      }
    });
  }

  /** A thread for a job, whose end of the pipe is closed if there is none. */
  #takeFor(job: ArchiveJob, signal: AbortSignal): Worker {
    try {
      if (signal.aborted) throw cancelled('cancelled');
      return this.#pool.take();
    } catch (error) {
      closeEnd(job);
      throw error;
    }
  }
}

const newStop = (): Int32Array => new Int32Array(new SharedArrayBuffer(4));

function largePipe(): ReturnType<typeof pipe2> {
  const pipe = pipe2();
  setPipeSize(pipe.readFd, pipeBytes);
  return pipe;
}

/** The end of the pipe that the thread would have closed. */
function closeEnd(job: ArchiveJob): void {
  if (job.op === 'read') closeSync(job.outputFd);
  else if (job.op === 'write') closeSync(job.inputFd);
}

function work(worker: Worker, job: ArchiveJob, onFound?: (info: PathInfo) => void): Promise<void> {
  return new Promise((resolve, reject) => {
    const settle = (finish: () => void): void => {
      worker.off('message', answered);
      worker.off('error', failed);
      worker.off('exit', gone);
      finish();
    };
    const answered = (reply: ArchiveReply): void => {
      if (reply.kind === 'found') onFound?.(reply.info);
      else if (reply.kind === 'done') settle(resolve);
      else settle(() => reject(new EngineError(reply.error.kind, reply.error.message)));
    };
    const failed = (cause: unknown): void => settle(() => reject(internal('an archive thread failed', { cause })));
    const gone = (): void => failed('it ended');
    worker.on('message', answered);
    worker.once('error', failed);
    worker.once('exit', gone);
    worker.postMessage(job);
  });
}

async function feed(input: Socket, source: AsyncIterable<Buffer>): Promise<void> {
  for await (const bytes of source) {
    // The thread has ended: with what, it says itself.
    if (input.destroyed) return;
    if (!input.write(bytes)) await Promise.race([once(input, 'drain'), once(input, 'close')]).catch(ignoreBrokenPipe);
  }
  input.end(() => input.destroy());
}

function ignoreBrokenPipe(error: unknown): void {
  if (!hasCode(error, 'EPIPE', 'ECONNRESET')) throw error;
}
