import type { EventEmitter } from 'node:events';

/** The writable half of a grpc-js call, on either side. */
export interface MessageSink extends EventEmitter {
  write(message: unknown): boolean;
}

/**
 * Write every message of `source` to `sink`, waiting for `drain` whenever the connection is full.
 *
 * Resolves at the end of the source; rejects with its error, or with the signal's reason as soon as the signal fires.
 * However it ends early, the source is told with `return()` but not waited for: it may be stuck in an operation of its own.
 */
export async function pumpMessages(
  source: AsyncIterable<unknown>,
  sink: MessageSink,
  signal: AbortSignal,
): Promise<void> {
  const iterator = source[Symbol.asyncIterator]();
  const gate = new AbortGate(signal);
  let ended = false;
  try {
    for (;;) {
      const next = await gate.settle(iterator.next());
      if (next.done === true) {
        ended = true;
        return;
      }
      if (!sink.write(next.value)) await gate.settle(drained(sink));
    }
  } catch (error) {
    ended ||= !signal.aborted;
    throw error;
  } finally {
    gate.close();
    if (!ended) void endEarly(iterator);
  }
}

const drained = (sink: EventEmitter) => new Promise<void>((resolve) => sink.once('drain', resolve));

async function endEarly(iterator: AsyncIterator<unknown>): Promise<void> {
  try {
    await iterator.return?.();
  } catch {
    // Its failure no longer interests anyone: the call has its status already.
  }
}

/** Waits for one promise at a time or for the signal; `Promise.race` with one long-lived promise would keep a reaction per message. */
class AbortGate {
  readonly #signal: AbortSignal;
  #reject: ((reason: unknown) => void) | undefined;
  readonly #onAbort = () => this.#reject?.(this.#signal.reason);

  constructor(signal: AbortSignal) {
    this.#signal = signal;
    signal.addEventListener('abort', this.#onAbort);
  }

  settle<T>(promise: Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      if (this.#signal.aborted) {
        reject(this.#signal.reason as Error);
        promise.catch(() => undefined);
        return;
      }
      this.#reject = reject;
      promise.then(resolve, reject);
    });
  }

  close(): void {
    this.#signal.removeEventListener('abort', this.#onAbort);
  }
}
