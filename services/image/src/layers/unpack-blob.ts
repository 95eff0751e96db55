import { closeSync, readFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { cancelled, isEngineError } from '@flotilla/errors';
import { duplicateFd, pipe2, setPipeSize } from '@flotilla/sys';
import { CodecProcess, decompressorCommand } from './codec-process.js';
import type { LayerCompression } from './codec-process.js';
import type { LayerTaskResult } from './layer-tasks.js';
import type { LayerThread } from './layer-workers.js';

const progressMs = 100;
const pipeBytes = 1 << 20;

/**
 * Decompresses a blob in a child process, and unpacks what comes out in a thread that hashes it in passing.
 *
 * `directory` must be empty; after an error it holds rubbish. `onProgress` gets the bytes of the blob read so far.
 * @throws EngineError `dataLoss` when blob or archive are wrong, `cancelled` after `signal`
 */
export async function unpackBlob(
  thread: LayerThread,
  source: { blobPath: string; compression: LayerCompression },
  directory: string,
  signal: AbortSignal,
  onProgress: (readBytes: number) => void,
): Promise<LayerTaskResult> {
  const stop = new Int32Array(new SharedArrayBuffer(4));
  const blob = await open(source.blobPath, 'r');
  let codec: CodecProcess | undefined;
  const halt = () => {
    Atomics.store(stop, 0, 1);
    codec?.kill();
  };
  // Whoever reads shares this open file and its position, which so tells how far it has come.
  const timer = setInterval(() => onProgress(positionOf(blob.fd)), progressMs);
  signal.addEventListener('abort', halt, { once: true });
  try {
    let sourceFd: number;
    if (source.compression === 'none') sourceFd = duplicateFd(blob.fd);
    else {
      const { readFd, writeFd } = pipe2();
      setPipeSize(readFd, pipeBytes);
      codec = new CodecProcess(decompressorCommand(source.compression), blob.fd, writeFd);
      closeSync(writeFd);
      sourceFd = readFd;
    }
    if (signal.aborted) halt();
    const failed = (error: unknown) => {
      // Not the data's fault, and perhaps nobody reads on: do not wait for the child.
      if (isEngineError(error, 'internal')) halt();
      return { error };
    };
    const task = thread.run({ kind: 'unpack', sourceFd, directory, stop });
    // A tar that is cut short because the decompressor gave up: what that said is the cause.
    const [outcome, failure] = await Promise.all([task.catch(failed), codec?.failure()]);
    if (signal.aborted) throw cancelled('cancelled');
    // A decompressor that nobody reads from any more complains of that.
    if ('error' in outcome && isEngineError(outcome.error, 'internal')) throw outcome.error;
    if (failure !== undefined) throw failure;
    if ('error' in outcome) throw outcome.error;
    onProgress(positionOf(blob.fd));
    return outcome;
  } finally {
    signal.removeEventListener('abort', halt);
    clearInterval(timer);
    await blob.close();
  }
}

/** How far an open file has been read; 0 once it is closed. */
export function positionOf(fd: number): number {
  try {
    return Number(/^pos:\s*(\d+)/.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'latin1'))?.[1] ?? 0);
  } catch {
    return 0;
  }
}
