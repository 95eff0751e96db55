import { closeSync } from 'node:fs';
import { Socket } from 'node:net';
import { cancelled } from '@flotilla/errors';
import { largePipe } from './large-pipe.js';
import type { LayerTree } from './layer-tasks.js';
import type { LayerWorkers } from './layer-workers.js';

/**
 * The tar of a tree, written by a thread of `workers` as fast as it is read. Leaving the loop early ends the thread's
 * work, which is waited for: after that nothing of the tree is open.
 */
export async function* packToStream(
  workers: LayerWorkers,
  what: { readonly tree: LayerTree; readonly as: 'layer' | 'root file system' },
  signal: AbortSignal,
): AsyncGenerator<Buffer> {
  const stop = new Int32Array(new SharedArrayBuffer(4));
  const { readFd, writeFd } = largePipe();
  const output = new Socket({ fd: readFd, readable: true, writable: false });
  const halt = () => {
    Atomics.store(stop, 0, 1);
    output.destroy();
  };
  signal.addEventListener('abort', halt, { once: true });
  let isHandedOver = false;
  const packing = workers
    .withWorker(signal, (thread) => {
      isHandedOver = true;
      return thread.run({ kind: 'pack', ...what, outputFd: writeFd, stop });
    })
    .then(
      () => undefined,
      (error: unknown) => {
        if (!isHandedOver) closeSync(writeFd);
        return { error };
      },
    );
  if (signal.aborted) halt();
  try {
    for await (const chunk of output) yield chunk as Buffer;
    const failure = await packing;
    if (failure !== undefined) throw failure.error;
  } catch (error) {
    if (signal.aborted) throw cancelled('cancelled', { cause: error });
    throw error;
  } finally {
    signal.removeEventListener('abort', halt);
    halt();
    await packing;
  }
}
