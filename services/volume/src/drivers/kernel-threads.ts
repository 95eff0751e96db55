import type { Worker } from 'node:worker_threads';
import { cancelled, deadlineExceeded, internal, messageOf, unavailable } from '@flotilla/errors';
import { SysError, WorkerPool } from '@flotilla/sys';
import type { KernelJob, KernelJobMessage, KernelReply, KernelResult } from './kernel-jobs.js';
import { Patience } from './patience.js';

export interface KernelLimits {
  /** Milliseconds without progress after which a job is given up; its thread is left to the kernel. */
  answerMs: number;
  /** The same for `measure`, which nobody needs in earnest; milliseconds. */
  measureMs: number;
  /** Number of jobs that the kernel keeps for long, or for ever: with so many, no other begins. */
  atOnce: number;
}

export const kernelLimits: KernelLimits = { answerMs: 60_000, measureMs: 5_000, atOnce: 32 };

/** So many run side by side; one that takes longer than a second is not counted any more. */
const sideBySide = 4;
const promptMs = 1_000;
/** Jobs that wait for their turn. */
const queueLength = 4096;

interface Running {
  readonly volume: string;
  readonly job: KernelJob;
  sinceMs: number;
  /** It did not come back within `promptMs`. */
  isSlow: boolean;
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
   * @throws SysError what the kernel says; EngineError `deadlineExceeded` when it says nothing, or kept too many others, `cancelled` when the signal
   *   fires first.
   */
  async run(volume: string, job: KernelJob, signal?: AbortSignal): Promise<KernelResult> {
    this.checkAnswered(volume, job.kind);
    this.#checkThreads();
    const running: Running = { volume, job, sinceMs: Date.now(), isSlow: false, isGivenUp: false };
    const leave = await this.#enter(running);
    try {
      if (isAborted(signal)) throw cancelled(`${describe(running)}: cancelled`);
      this.#checkThreads();
    } catch (error) {
      leave();
      throw error;
    }
    this.#running.add(running);
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
      if (isAborted(signal)) throw cancelled(`${describe(running)}: cancelled`);
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

  /** @throws EngineError `deadlineExceeded` while a job of such a kind for the volume was given up and may still be done */
  checkAnswered(volume: string, ...kinds: KernelJob['kind'][]): void {
    for (const one of this.#running) {
      if (one.isGivenUp && one.volume === volume && kinds.includes(one.job.kind)) throw noAnswer(one);
    }
  }

  #checkThreads(): void {
    const kept = [...this.#running].filter(({ isSlow, isGivenUp }) => isSlow || isGivenUp);
    const [oldest] = kept;
    if (oldest === undefined || kept.length < this.#limits.atOnce) return;
    throw deadlineExceeded(`${kept.length} calls for volumes wait for the kernel already: ${noAnswer(oldest).message}`);
  }

  /** Wait for a turn. @returns what ends it */
  async #enter(running: Running): Promise<() => void> {
    if (this.#prompt >= sideBySide) {
      if (this.#queue.length >= queueLength)
        throw unavailable(`${describe(running)}: too many calls wait for their turn`);
      await new Promise<void>((resolve) => this.#queue.push(resolve));
      running.sinceMs = Date.now();
    } else this.#prompt += 1;
    let isIn = true;
    const leave = (): void => {
      if (!isIn) return;
      isIn = false;
      clearTimeout(timer);
      const next = this.#queue.shift();
      if (next === undefined) this.#prompt -= 1;
      else next();
    };
    const timer = setTimeout(() => {
      running.isSlow = true;
      leave();
    }, promptMs);
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

const isAborted = (signal: AbortSignal | undefined): boolean => signal?.aborted === true;

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
    const end = (): void => settle({ failure: 'the thread ended without an answer' });
    worker.on('message', settle);
    worker.on('error', fail);
    worker.on('exit', end);
    worker.postMessage(message);
  });
}
