import type { Worker } from 'node:worker_threads';
import { startWorker } from './worker.js';

const idleMs = 10_000;
/** Objects of a tar's members live shortly: more would only keep more of them. */
const youngGenerationMiB = 4;

/** Worker threads of one program, kept for the next job: started when needed, gone when idle for ten seconds. */
export class WorkerPool implements AsyncDisposable {
  readonly #name: string;
  readonly #importMetaUrl: string;
  readonly #idle: { worker: Worker; timer: NodeJS.Timeout }[] = [];
  readonly #workers = new Set<Worker>();

  /** Of a compiled program, as `startWorker` finds it. How many run at once is for the caller to limit. */
  constructor(name: string, importMetaUrl: string) {
    this.#name = name;
    this.#importMetaUrl = importMetaUrl;
  }

  /** An idle thread, or a new one; after its job it is given to `rest`. */
  take(): Worker {
    for (let entry = this.#idle.pop(); entry !== undefined; entry = this.#idle.pop()) {
      clearTimeout(entry.timer);
      if (this.#workers.has(entry.worker)) return entry.worker;
    }
    const worker = startWorker(this.#name, this.#importMetaUrl, {
      resourceLimits: { maxYoungGenerationSizeMb: youngGenerationMiB },
    });
    worker.unref();
    // One that dies while idle is only forgotten.
    worker.on('error', () => this.#workers.delete(worker));
    worker.once('exit', () => this.#workers.delete(worker));
    this.#workers.add(worker);
    return worker;
  }

  /** Keep a thread for the next job, unless it has died. */
  rest(worker: Worker): void {
    if (!this.#workers.has(worker)) return;
    const timer = setTimeout(() => {
      const at = this.#idle.findIndex((entry) => entry.worker === worker);
      if (at >= 0) this.#idle.splice(at, 1);
      void worker.terminate();
    }, idleMs);
    timer.unref();
    this.#idle.push({ worker, timer });
  }

  /** Forget a thread that does not come back from the kernel: disposal does not wait for it. */
  abandon(worker: Worker): void {
    this.#workers.delete(worker);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const { timer } of this.#idle.splice(0)) clearTimeout(timer);
    await Promise.all([...this.#workers].map((worker) => worker.terminate()));
  }
}
