import { closeSync } from 'node:fs';
import type { FileHandle } from 'node:fs/promises';
import { open, statfs } from 'node:fs/promises';
import { Socket } from 'node:net';
import { dirname } from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { cancelled, internal, isEngineError } from '@flotilla/errors';
import type { EngineError } from '@flotilla/errors';
import { duplicateFd, pipe2, setPipeSize } from '@flotilla/sys';
import { CodecProcess, compressorCommand } from './codec-process.js';
import type { LayerThread } from './layer-workers.js';

const pipeBytes = 1 << 20;
/** Less than a compressor writes at once. */
const fullBelowBytes = 1 << 20;

export interface CompressInput {
  /** The uncompressed tar: a file, or its bytes. */
  source: string | AsyncIterable<Uint8Array>;
  /** File to make; must not exist. */
  targetPath: string;
  signal?: AbortSignal;
}

export interface CompressedLayer {
  /** Of the compressed file. */
  digest: string;
  compressedBytes: number;
  /** Of the tar: its DiffID. */
  diffId: string;
  uncompressedBytes: number;
}

/**
 * Compresses with gzip at the fastest level and hashes both sides in passing. The target is not synced to disk; after
 * an error it is half-made, and the caller's to remove. Whether the source is a tar is not looked at.
 */
export async function compressLayer(thread: LayerThread, input: CompressInput): Promise<CompressedLayer> {
  const { signal } = input;
  const stop = new Int32Array(new SharedArrayBuffer(4));
  let codec: CodecProcess | undefined;
  let feed: Feed | undefined;
  const halt = () => {
    Atomics.store(stop, 0, 1);
    codec?.kill();
    feed?.cancel();
  };
  const target = await open(input.targetPath, 'wx', 0o600);
  signal?.addEventListener('abort', halt, { once: true });
  try {
    feed = typeof input.source === 'string' ? await feedFile(input.source) : feedStream(input.source);
    const compressorPipe = pipe2();
    setPipeSize(compressorPipe.readFd, pipeBytes);
    codec = new CodecProcess(compressorCommand(), compressorPipe.readFd, target.fd);
    closeSync(compressorPipe.readFd);
    if (signal?.aborted === true) halt();
    const failed = (error: unknown) => {
      // Not the data's fault, and perhaps nobody reads on: do not wait for the child.
      if (isEngineError(error, 'internal')) halt();
      return { error };
    };
    const task = thread.run({ kind: 'compress', sourceFd: feed.fd, compressorFd: compressorPipe.writeFd, stop });
    const [read, failure, feeding] = await Promise.all([
      task.catch(failed),
      codec.failure(),
      feed.done.catch((error: unknown) => ({ error })),
    ]);
    if (signal?.aborted === true) throw cancelled('cancelled');
    if (failure !== undefined) throw await compressError(failure, input.targetPath);
    if ('error' in read) throw read.error;
    if (feeding !== undefined) throw feeding.error;
    const written = await thread.run({ kind: 'digest', path: input.targetPath, stop });
    return {
      digest: written.digest,
      compressedBytes: written.readBytes,
      diffId: read.digest,
      uncompressedBytes: read.readBytes,
    };
  } finally {
    signal?.removeEventListener('abort', halt);
    await target.close();
  }
}

/** A compressor takes any data: what it fails at is writing, and igzip does not say why. */
async function compressError(failure: EngineError, targetPath: string): Promise<EngineError> {
  const { bavail, bsize } = await statfs(dirname(targetPath));
  const isFull = bavail * bsize < fullBelowBytes;
  return internal(isFull ? 'no space left on device' : failure.message, { cause: failure });
}

/** A descriptor to read from, which the reader closes. */
interface Feed {
  fd: number;
  /** Settles when everything has been handed over; rejects with the source's error. */
  done: Promise<void>;
  cancel: () => void;
}

async function feedFile(path: string): Promise<Feed> {
  const file: FileHandle = await open(path, 'r');
  try {
    return { fd: duplicateFd(file.fd), done: Promise.resolve(), cancel: () => undefined };
  } finally {
    await file.close();
  }
}

function feedStream(source: AsyncIterable<Uint8Array>): Feed {
  const { readFd, writeFd } = pipe2();
  setPipeSize(readFd, pipeBytes);
  const socket = new Socket({ fd: writeFd, readable: false, writable: true });
  const stop = new AbortController();
  const done = pipeline(Readable.from(source, { objectMode: false }), socket, { signal: stop.signal });
  return { fd: readFd, done, cancel: () => stop.abort() };
}
