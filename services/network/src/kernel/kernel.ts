import type { Worker } from 'node:worker_threads';
import { internal, messageOf } from '@flotilla/errors';
import type { EngineError } from '@flotilla/errors';
import { startWorker } from '@flotilla/sys';
import type { Logger } from '@flotilla/log';
import type { KernelAnswer, KernelCall } from './kernel-messages.js';
import type { KernelOperations } from './kernel-operations.js';

type Argument<K extends keyof KernelOperations> = Parameters<KernelOperations[K]>[0];
type Result<K extends keyof KernelOperations> = ReturnType<KernelOperations[K]>;

/** A refusal of the kernel, told by the worker. `code` is the errno's name where there was one. */
export class KernelError extends Error {
  readonly code: string;

  constructor(message: string, code: string, stack: string) {
    super(message);
    this.name = 'KernelError';
    this.code = code;
    if (stack !== '') this.stack = stack;
  }
}

/** A failure of the kernel worker as the user will read it. */
export function kernelFailure(what: string, error: unknown): EngineError {
  return internal(`${what}: ${messageOf(error)}`, { cause: error });
}

/** What the domain uses of the kernel; the worker thread in production. */
export interface KernelCalls {
  call<K extends keyof KernelOperations>(operation: K, argument: Argument<K>): Promise<Result<K>>;
}

/** The worker holds next to nothing: a small young generation keeps it so. */
const workerLimits = { maxYoungGenerationSizeMb: 4, maxOldGenerationSizeMb: 128 };

interface Pending {
  resolve: (result: unknown) => void;
  reject: (error: Error) => void;
}

/** The kernel worker, seen from the main thread. Calls are done in the order in which they are made. */
export class Kernel implements KernelCalls, AsyncDisposable {
  readonly #worker: Worker;
  readonly #pending = new Map<number, Pending>();
  #nextId = 1;

  /** @param onDeath called when the worker is gone without being disposed: the service cannot go on */
  constructor(log: Logger, onDeath: (error: Error) => void) {
    this.#worker = startWorker('network-kernel-worker', import.meta.url, { resourceLimits: workerLimits });
    this.#worker.on('message', (answer: KernelAnswer) => {
      if (answer.kind === 'report') log.error({ detail: answer.detail }, answer.message);
      else this.#settle(answer);
    });
    this.#worker.on('error', (error) => this.#fail(error instanceof Error ? error : new Error(String(error)), onDeath));
    this.#worker.on('exit', (code) => this.#fail(new Error(`the kernel worker ended with ${code}`), onDeath));
  }

  call<K extends keyof KernelOperations>(operation: K, argument: Argument<K>): Promise<Result<K>> {
    return new Promise((resolve, reject) => {
      const id = this.#nextId++;
      this.#pending.set(id, { resolve: (result) => resolve(result as Result<K>), reject });
      const call: KernelCall = { id, operation, argument };
      this.#worker.postMessage(call);
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#worker.removeAllListeners('exit');
    this.#worker.removeAllListeners('error');
    await this.#worker.terminate();
    this.#rejectAll(new Error('the kernel worker was closed'));
  }

  #settle(answer: Exclude<KernelAnswer, { kind: 'report' }>): void {
    const pending = this.#pending.get(answer.id);
    this.#pending.delete(answer.id);
    if (answer.kind === 'result') pending?.resolve(answer.result);
    else pending?.reject(new KernelError(answer.message, answer.code, answer.stack));
  }

  #fail(error: Error, onDeath: (error: Error) => void): void {
    this.#rejectAll(error);
    onDeath(error);
  }

  #rejectAll(error: Error): void {
    for (const { reject } of this.#pending.values()) reject(error);
    this.#pending.clear();
  }
}
