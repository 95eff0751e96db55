import { availableParallelism } from 'node:os';
import { EngineError, cancelled, internal } from '@flotilla/errors';
import { WorkerPool, startThreadPool } from '@flotilla/sys';
import type { LayerReply, LayerTask, LayerTaskResult } from './layer-tasks.js';

/** A thread takes 10 MiB. */
const maxThreads = 4;

/**
 * The worker threads that read and write layers: as many as there are cores, two to four, and as many again for blobs
 * and layers that are still arriving, so that a slow registry or client keeps nobody waiting. Started when needed, gone
 * when idle for ten seconds.
 */
export class LayerWorkers implements AsyncDisposable {
  readonly #turns: Turns;
  readonly #followerTurns: Turns;
  readonly #pool = new WorkerPool('layer-worker', import.meta.url);
  #poolStarted: Promise<void> | undefined;

  constructor(limit = Math.min(maxThreads, Math.max(2, availableParallelism()))) {
    this.#turns = new Turns(limit);
    this.#followerTurns = new Turns(limit);
  }

  /** Waits for a free thread and gives it to `use`, which may run several tasks on it. */
  withWorker<T>(signal: AbortSignal, use: (worker: LayerThread) => Promise<T>): Promise<T> {
    return this.#take(this.#turns, signal, use);
  }

  /** Whether `withFollower` would begin at once. */
  get hasFreeFollower(): boolean {
    return this.#followerTurns.isFree;
  }

  /** As `withWorker`, for a task that waits for a download most of the time. */
  withFollower<T>(signal: AbortSignal, use: (worker: LayerThread) => Promise<T>): Promise<T> {
    return this.#take(this.#followerTurns, signal, use);
  }

  async #take<T>(turns: Turns, signal: AbortSignal, use: (worker: LayerThread) => Promise<T>): Promise<T> {
    await turns.take(signal);
    try {
      this.#poolStarted ??= startThreadPool();
      await this.#poolStarted;
      return await use({ run: (task) => this.#run(task) });
    } finally {
      turns.giveBack();
    }
  }

  async #run(task: LayerTask): Promise<LayerTaskResult> {
    const worker = this.#pool.take();
    const reply = await new Promise<LayerReply>((resolve) => {
      const settle = (answer: LayerReply) => {
        worker.off('message', settle);
        worker.off('error', failed);
        worker.off('exit', gone);
        resolve(answer);
      };
      const failed = (error: unknown) => {
        settle({ error: { kind: 'internal', message: `layer worker failed: ${String(error)}` } });
      };
      const gone = () => failed('it exited');
      worker.once('message', settle);
      worker.once('error', failed);
      worker.once('exit', gone);
      worker.postMessage(task);
    });
    this.#pool.rest(worker);
    if ('result' in reply) return reply.result;
    throw reply.error.kind === 'internal'
      ? internal(reply.error.message)
      : new EngineError(reply.error.kind, reply.error.message);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#pool[Symbol.asyncDispose]();
  }
}

/** At most `limit` at once, the others in the order in which they came. */
class Turns {
  readonly #limit: number;
  readonly #waiting: (() => void)[] = [];
  #taken = 0;

  constructor(limit: number) {
    this.#limit = limit;
  }

  get isFree(): boolean {
    return this.#taken < this.#limit;
  }

  /** @throws EngineError `cancelled` after `signal` */
  async take(signal: AbortSignal): Promise<void> {
    if (signal.aborted) throw cancelled('cancelled');
    if (this.#taken >= this.#limit) {
      await new Promise<void>((resolve, reject) => {
        const turn = () => {
          signal.removeEventListener('abort', giveUp);
          resolve();
        };
        const giveUp = () => {
          this.#waiting.splice(this.#waiting.indexOf(turn), 1);
          reject(cancelled('cancelled'));
        };
        this.#waiting.push(turn);
        signal.addEventListener('abort', giveUp, { once: true });
      });
    }
    this.#taken++;
  }

  giveBack(): void {
    this.#taken--;
    this.#waiting.shift()?.();
  }
}

export interface LayerThread {
  /** @throws EngineError as the task failed */
  run(task: LayerTask): Promise<LayerTaskResult>;
}
