import type { Worker } from 'node:worker_threads';
import { cancelled, deadlineExceeded, internal, messageOf } from '@flotilla/errors';
import { SysError, WorkerPool } from '@flotilla/sys';
import type { KernelJob, KernelJobMessage, KernelReply, KernelResult } from './kernel-jobs.js';

export interface KernelLimits {
  /** A job that shows no progress for so long is given up; its thread is left to the kernel. */
  answerMs: number;
  /** The same for `measure`, which nobody needs in earnest. */
  measureMs: number;
  /** Jobs at once, with those that were given up and have not come back. */
  atOnce: number;
}

export const kernelLimits: KernelLimits = { answerMs: 60_000, measureMs: 5_000, atOnce: 32 };

/** So many run side by side; one that takes longer than a second is not counted any more. */
const sideBySide = 4;
const promptMs = 1_000;

interface Running {
  readonly volume: string;
  readonly job: KernelJob;
  readonly sinceMs: number;
  isGivenUp: boolean;
}

/**
 * Jobs for the kernel, each in a thread. One that the kernel does not come back from is given up: its caller gets an error, the thread stays, and
 * until it comes back there is no other of the kind for the volume. What it has mounted by then is taken off again.
 */
export class KernelThreads implements AsyncDisposable {
  readonly #limits: KernelLimits;
  readonly #pool = new WorkerPool('volume-kernel-worker', import.meta.url);
  readonly #running = new Set<Running>();
  readonly #queue: (() => void)[] = [];
  #prompt = 0;

  constructor(limits: KernelLimits = kernelLimits) {
    this.#limits = limits;
  }

  /**
   * @param volume its name
   * @throws SysError what the kernel says; EngineError `deadlineExceeded` when it says nothing, `cancelled` when the signal fires first.
   */
  async run(volume: string, job: KernelJob, signal?: AbortSignal): Promise<KernelResult> {
    this.#refuse(volume, job);
    const running: Running = { volume, job, sinceMs: Date.now(), isGivenUp: false };
    this.#running.add(running);
    const leave = await this.#enter();
    const progress = new Int32Array(new SharedArrayBuffer(4));
    const worker = this.#pool.take();
    const asked = ask(worker, { job, progress }).then(async (reply) => {
      leave();
      await this.#cameBack(running, worker, reply);
      return reply;
    });
    using patience = new Patience(
      progress,
      job.kind === 'measure' ? this.#limits.measureMs : this.#limits.answerMs,
      signal,
    );
    const reply = await Promise.race([asked, patience.end]);
    if (reply === undefined) {
      running.isGivenUp = true;
      this.#pool.abandon(worker);
      if (signal?.aborted === true) throw cancelled(`${describe(running)}: cancelled`);
      throw noAnswer(running);
    }
    if ('failure' in reply) throw internal(reply.failure);
    if ('errno' in reply) throw new SysError(describe(running), reply.errno);
    return reply.result;
  }

  /** Threads that the kernel has kept are not waited for. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#pool[Symbol.asyncDispose]();
  }

  #refuse(volume: string, { kind }: KernelJob): void {
    for (const one of this.#running) {
      if (one.isGivenUp && one.volume === volume && one.job.kind === kind) throw noAnswer(one);
    }
    const [oldest] = this.#running;
    if (oldest === undefined || this.#running.size < this.#limits.atOnce) return;
    throw deadlineExceeded(
      `${this.#running.size} calls for volumes wait for the kernel already: ${noAnswer(oldest).message}`,
    );
  }

  /** Wait for a turn. @returns what ends it */
  async #enter(): Promise<() => void> {
    if (this.#prompt >= sideBySide) await new Promise<void>((resolve) => this.#queue.push(resolve));
    else this.#prompt += 1;
    let isIn = true;
    const leave = (): void => {
      if (!isIn) return;
      isIn = false;
      clearTimeout(timer);
      const next = this.#queue.shift();
      if (next === undefined) this.#prompt -= 1;
      else next();
    };
    const timer = setTimeout(leave, promptMs);
    timer.unref();
    return leave;
  }

  async #cameBack(running: Running, worker: Worker, reply: KernelReply): Promise<void> {
    const { job, isGivenUp } = running;
    if (isGivenUp && job.kind === 'mount' && 'result' in reply) {
      // Nobody knows of it.
      await ask(worker, {
        job: { kind: 'unmount', target: job.target },
        progress: new Int32Array(new SharedArrayBuffer(4)),
      });
    }
    this.#running.delete(running);
    if (isGivenUp) void worker.terminate();
    else this.#pool.rest(worker);
  }
}

const describe = ({ job }: Running): string => `${job.kind} ${job.target}`;

function noAnswer(running: Running): Error {
  const seconds = Math.round((Date.now() - running.sinceMs) / 1000);
  return deadlineExceeded(`${describe(running)}: no answer from the kernel for ${seconds} seconds`);
}

/** Resolves in any case, also when the thread dies. */
function ask(worker: Worker, message: KernelJobMessage): Promise<KernelReply> {
  return new Promise((resolve) => {
    const settle = (reply: KernelReply): void => {
      worker.off('message', settle);
      worker.off('error', fail);
      worker.off('exit', end);
      resolve(reply);
    };
    const fail = (error: unknown): void => settle({ failure: messageOf(error) });
    const end = (): void => settle({ failure: 'the mount thread ended without an answer' });
    worker.on('message', settle);
    worker.on('error', fail);
    worker.on('exit', end);
    worker.postMessage(message);
  });
}

/** Ends when a number has not grown for a while, or when the signal fires. */
class Patience implements Disposable {
  readonly end: Promise<undefined>;
  readonly #stop: () => void;

  constructor(progress: Int32Array, limitMs: number, signal: AbortSignal | undefined) {
    let resolve: (value: undefined) => void = () => undefined;
    this.end = new Promise((done) => (resolve = done));
    const lose = (): void => resolve(undefined);
    let last = 0;
    const timer = setInterval(() => {
      const now = Atomics.load(progress, 0);
      // At zero the thread is still being started.
      if (now !== 0 && now === last) lose();
      last = now;
    }, limitMs);
    timer.unref();
    if (signal?.aborted === true) lose();
    else signal?.addEventListener('abort', lose);
    this.#stop = () => {
      clearInterval(timer);
      signal?.removeEventListener('abort', lose);
    };
  }

  [Symbol.dispose](): void {
    this.#stop();
  }
}
