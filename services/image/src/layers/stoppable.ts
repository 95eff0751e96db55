/** Work of a thread, which looks at `stop` from time to time: `signal` sets it to 1. */
export async function stoppable<T>(signal: AbortSignal, work: (stop: Int32Array) => Promise<T>): Promise<T> {
  const stop = new Int32Array(new SharedArrayBuffer(4));
  const halt = (): void => void Atomics.store(stop, 0, 1);
  signal.addEventListener('abort', halt, { once: true });
  try {
    return await work(stop);
  } finally {
    signal.removeEventListener('abort', halt);
  }
}
