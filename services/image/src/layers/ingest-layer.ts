import { closeSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { Socket } from 'node:net';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { cancelled, internal, isEngineError, messageOf } from '@flotilla/errors';
import { duplicateFd, hasCode, pipe2 } from '@flotilla/sys';
import { largePipe } from './large-pipe.js';
import { CodecProcess, compressorCommand } from './codec-process.js';
import type { ArrivingTaskPart, LayerTree } from './layer-tasks.js';
import type { LayerThread } from './layer-workers.js';
import { registerError } from './register-error.js';
import { positionOf } from './unpack-blob.js';

const progressMs = 100;

/** An uncompressed layer: a tar file, the bytes of one, a part of what arrives, or what a container has changed. */
export type PlainLayer = string | AsyncIterable<Uint8Array> | ArrivingPart | LayerTree;

/** Bytes of which the first have arrived; a thread reads the others itself. */
export interface ArrivingPart {
  head: Uint8Array;
  /** Where the others come from, until the end of it or until all are there; need not block. Stays the caller's. */
  fd: number;
  /** Of all bytes; Infinity: what there is. When it is a number, those of a layer that turns out bad are read nevertheless. */
  length: number;
}

export interface IngestInput {
  source: PlainLayer;
  /** Empty directory to unpack into; after an error it holds rubbish. */
  directory: string;
  /** Compressed file to make; must not exist. */
  targetPath: string;
  signal?: AbortSignal | undefined;
  /** Bytes of the tar so far, about ten times a second; for files only. */
  onProgress?: ((readBytes: number) => void) | undefined;
}

export interface CompressedLayer {
  /** Of the compressed file. */
  digest: string;
  compressedBytes: number;
  /** Of the tar: its DiffID. */
  diffId: string;
  uncompressedBytes: number;
}

export interface IngestedLayer extends CompressedLayer {
  /** Sum of the sizes of the layer's files. */
  fileBytes: number;
}

/**
 * Unpacks a layer, compresses it with gzip at the fastest level and hashes both sides, reading it once.
 *
 * Threads of their own read, unpack and write. The target is not synced to disk; after an error it is half-made, and the
 * caller's to remove. Nothing works on when this settles.
 *
 * @throws EngineError `dataLoss` when it is no layer, `cancelled` after `signal`, or the source's own error
 */
export async function ingestLayer(thread: LayerThread, input: IngestInput): Promise<IngestedLayer> {
  const { signal } = input;
  const stop = new Int32Array(new SharedArrayBuffer(4));
  const target = await open(input.targetPath, 'wx', 0o600);
  let codec: CodecProcess | undefined;
  let feed: Feed | undefined;
  const halt = () => {
    Atomics.store(stop, 0, 1);
    codec?.kill();
    feed?.cancel();
  };
  signal?.addEventListener('abort', halt, { once: true });
  let timer: NodeJS.Timeout | undefined;
  try {
    feed = await feedOf(thread, input.source, stop);
    const { position } = feed;
    if (input.onProgress !== undefined) timer = setInterval(() => input.onProgress?.(position()), progressMs);
    const plain = largePipe();
    const compressed = largePipe();
    codec = new CodecProcess(compressorCommand(), plain.readFd, compressed.writeFd);
    closeSync(plain.readFd);
    closeSync(compressed.writeFd);
    if (signal?.aborted === true) halt();
    const { fd, part } = feed;
    const failed = (error: unknown) => {
      // Nobody may read or write on: do not wait for it.
      halt();
      return { error };
    };
    const [spooled, fed, read, failure] = await Promise.all([
      thread.run({ kind: 'spool', sourceFd: compressed.readFd, targetFd: duplicateFd(target.fd), stop }).catch(failed),
      feed.done.then(
        () => undefined,
        (error: unknown) => ({ error }),
      ),
      thread
        .run({
          kind: 'ingest',
          sourceFd: fd,
          ...(part === undefined ? {} : { part }),
          directory: input.directory,
          compressorFd: plain.writeFd,
          stop,
        })
        .catch(failed),
      codec.failure(),
    ]);
    if (signal?.aborted === true) throw cancelled('cancelled');
    const errors = [
      ...(fed === undefined ? [] : [fed.error]),
      ...('error' in spooled ? [registerError(spooled.error)] : []),
      ...('error' in read ? [registerError(read.error)] : []),
      ...(failure === undefined ? [] : [failure]),
    ];
    if (errors.length > 0) {
      // Of several, the one that is not the others' consequence.
      const cause = errors.find((error) => !isConsequence(error)) ?? errors[0];
      // Only a reader that did not like the layer has read all of its part.
      const isUnread = part !== undefined && 'error' in read && !isBadLayer(read.error);
      throw isUnread && isBadLayer(cause) ? internal(messageOf(cause), { cause }) : cause;
    }
    if ('error' in read || 'error' in spooled) throw cancelled('cancelled');
    return {
      digest: spooled.digest,
      compressedBytes: spooled.readBytes,
      diffId: read.digest,
      uncompressedBytes: read.readBytes,
      fileBytes: read.fileBytes,
    };
  } finally {
    clearInterval(timer);
    signal?.removeEventListener('abort', halt);
    await feed?.close();
    await target.close();
  }
}

const isBadLayer = (error: unknown): boolean =>
  isEngineError(error, 'dataLoss') || isEngineError(error, 'invalidArgument');

/** An end that only tells that another part has ended. */
function isConsequence(error: unknown): boolean {
  if (hasCode(error, 'EPIPE', 'ERR_STREAM_PREMATURE_CLOSE', 'ECONNRESET', 'ABORT_ERR')) return true;
  return error instanceof Error && (/\bEPIPE\b/.test(error.message) || error.message === 'cancelled');
}

/** A descriptor to read from, which the reader closes. */
interface Feed {
  fd: number;
  part?: ArrivingTaskPart;
  /** Settles when everything has been handed over; rejects with the source's error. */
  done: Promise<unknown>;
  cancel: () => void;
  /** How much has been read, where that is known. */
  position: () => number;
  close: () => Promise<void>;
}

const nothingToClose = (): Promise<void> => Promise.resolve();

async function feedOf(thread: LayerThread, source: PlainLayer, stop: Int32Array): Promise<Feed> {
  if (typeof source === 'string') return feedFile(source);
  if ('head' in source) return feedPart(source);
  return 'upper' in source ? feedTree(thread, source, stop) : feedStream(source);
}

async function feedFile(path: string): Promise<Feed> {
  const file = await open(path, 'r');
  // Reader and this one share the position, which so tells how far it has come.
  return {
    fd: duplicateFd(file.fd),
    done: Promise.resolve(),
    cancel: () => undefined,
    position: () => positionOf(file.fd),
    close: () => file.close(),
  };
}

/** The thread waits for the bytes; closing the bell wakes it. */
function feedPart({ head, fd, length }: ArrivingPart): Feed {
  const bell = pipe2();
  let isRung = false;
  const ring = (): void => {
    if (!isRung) closeSync(bell.writeFd);
    isRung = true;
  };
  return {
    fd: duplicateFd(fd),
    part: { head, length, wakeFd: bell.readFd },
    done: Promise.resolve(),
    cancel: ring,
    position: () => 0,
    close: () => {
      ring();
      return Promise.resolve();
    },
  };
}

function feedStream(source: AsyncIterable<Uint8Array>): Feed {
  const { readFd, writeFd } = largePipe();
  const socket = new Socket({ fd: writeFd, readable: false, writable: true });
  const stop = new AbortController();
  const done = pipeline(Readable.from(source, { objectMode: false }), socket, { signal: stop.signal });
  return { fd: readFd, done, cancel: () => stop.abort(), position: () => 0, close: nothingToClose };
}

function feedTree(thread: LayerThread, tree: LayerTree, stop: Int32Array): Feed {
  const { readFd, writeFd } = largePipe();
  const done = thread.run({ kind: 'pack', tree, as: 'layer', outputFd: writeFd, stop });
  return { fd: readFd, done, cancel: () => undefined, position: () => 0, close: nothingToClose };
}
