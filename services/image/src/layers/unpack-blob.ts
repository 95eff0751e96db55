import { closeSync, constants, readFileSync, writeSync } from 'node:fs';
import { open } from 'node:fs/promises';
import type { FileHandle } from 'node:fs/promises';
import { cancelled, isEngineError } from '@flotilla/errors';
import { O_CLOEXEC, duplicateFd, hasCode, pipe2 } from '@flotilla/sys';
import { compressionOf } from '@flotilla/layer-tar';
import { largePipe } from './large-pipe.js';
import { CodecProcess, decompressorCommand } from './codec-process.js';
import type { LayerCompression } from './codec-process.js';
import type { GrowingBlob } from './growing-blob.js';
import type { Follow, LayerTaskResult } from './layer-tasks.js';
import type { LayerThread } from './layer-workers.js';

const progressMs = 100;
/** What is needed to tell the compression. */
export const headBytes = 4;

type Progress = (readBytes: number) => void;

/**
 * Decompresses a blob in a child process, and unpacks what comes out in a thread that hashes it in passing.
 *
 * `directory` must be empty; after an error it holds rubbish. `onProgress` gets the bytes of the blob read so far.
 * @throws EngineError `dataLoss` when blob or archive are wrong, `cancelled` after `signal`
 */
export async function unpackBlob(
  thread: LayerThread,
  { blobPath, compression }: { blobPath: string; compression: LayerCompression },
  directory: string,
  signal: AbortSignal,
  onProgress: Progress,
): Promise<LayerTaskResult> {
  const blob = await open(blobPath, 'r');
  try {
    return await unpackFrom(thread, { fd: blob.fd, compression }, directory, signal, onProgress);
  } finally {
    await blob.close();
  }
}

/**
 * As `unpackBlob`, of a blob that is still being downloaded and of which the first bytes are there. When the download
 * begins anew this ends with `cancelled`.
 */
export async function unpackGrowing(
  thread: LayerThread,
  growing: GrowingBlob,
  directory: string,
  signal: AbortSignal,
  onProgress: Progress,
): Promise<LayerTaskResult> {
  const { generation } = growing;
  const blob = await openGrowing(growing);
  const restarted = new AbortController();
  const state = new BigInt64Array(new SharedArrayBuffer(2 * BigInt64Array.BYTES_PER_ELEMENT));
  const bell = pipe2(O_CLOEXEC | constants.O_NONBLOCK);
  const ring = (): void => {
    try {
      writeSync(bell.writeFd, 'x');
    } catch (error) {
      // Rung often enough, or nobody listens any more.
      if (!hasCode(error, 'EAGAIN', 'EPIPE')) throw error;
    }
  };
  const tell = (): void => {
    if (growing.generation !== generation) restarted.abort();
    else {
      Atomics.store(state, 0, BigInt(growing.available));
      if (growing.isWhole) Atomics.store(state, 1, 1n);
    }
    ring();
  };
  const leave = growing.onChange(tell);
  try {
    const head = Buffer.alloc(headBytes);
    const { bytesRead } = await blob.read(head, 0, head.length, 0);
    const compression = compressionOf(head.subarray(0, bytesRead));
    tell();
    const source = { fd: blob.fd, compression, follow: { wakeFd: bell.readFd, state, ring } };
    return await unpackFrom(thread, source, directory, AbortSignal.any([signal, restarted.signal]), onProgress);
  } finally {
    leave();
    closeSync(bell.writeFd);
    closeSync(bell.readFd);
    await blob.close();
  }
}

async function openGrowing(growing: GrowingBlob): Promise<FileHandle> {
  try {
    return await open(growing.path, 'r');
  } catch (error) {
    if (!hasCode(error, 'ENOENT')) throw error;
    // It has just been taken to where it stays.
    return open(await growing.finished, 'r');
  }
}

interface Source {
  fd: number;
  compression: LayerCompression;
  follow?: Pick<Follow, 'wakeFd' | 'state'> & { ring: () => void };
}

async function unpackFrom(
  thread: LayerThread,
  { fd, compression, follow }: Source,
  directory: string,
  signal: AbortSignal,
  onProgress: Progress,
): Promise<LayerTaskResult> {
  const stop = new Int32Array(new SharedArrayBuffer(4));
  let codec: CodecProcess | undefined;
  const halt = () => {
    Atomics.store(stop, 0, 1);
    codec?.kill();
    follow?.ring();
  };
  // Whoever reads shares this open file and its position, which so tells how far it has come.
  const timer = setInterval(() => onProgress(positionOf(fd)), progressMs);
  signal.addEventListener('abort', halt, { once: true });
  try {
    let sourceFd: number;
    let codecFd = -1;
    if (compression === 'none') sourceFd = duplicateFd(fd);
    else {
      const output = largePipe();
      const input = follow === undefined ? undefined : largePipe();
      codec = new CodecProcess(decompressorCommand(compression), input?.readFd ?? fd, output.writeFd);
      closeSync(output.writeFd);
      if (input !== undefined) closeSync(input.readFd);
      codecFd = input?.writeFd ?? -1;
      sourceFd = output.readFd;
    }
    if (signal.aborted) halt();
    const failed = (error: unknown) => {
      // Not the data's fault, and perhaps nobody reads on: do not wait for the child.
      if (isEngineError(error, 'internal')) halt();
      return { error };
    };
    const blobFd = codec === undefined || follow === undefined ? -1 : duplicateFd(fd);
    const wakeFd = follow === undefined ? -1 : duplicateFd(follow.wakeFd);
    const task = thread.run({
      kind: 'unpack',
      sourceFd,
      ...(follow === undefined ? {} : { follow: { blobFd, codecFd, wakeFd, state: follow.state } }),
      directory,
      stop,
    });
    // A tar that is cut short because the decompressor gave up: what that said is the cause.
    const [outcome, failure] = await Promise.all([task.catch(failed), codec?.failure()]);
    if (signal.aborted) throw cancelled('cancelled');
    // A decompressor that nobody reads from any more complains of that.
    if ('error' in outcome && isEngineError(outcome.error, 'internal')) throw outcome.error;
    if (failure !== undefined) throw failure;
    if ('error' in outcome) throw outcome.error;
    onProgress(positionOf(fd));
    return outcome;
  } finally {
    signal.removeEventListener('abort', halt);
    clearInterval(timer);
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
