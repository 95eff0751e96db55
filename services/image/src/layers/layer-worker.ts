import type { Hash } from 'node:crypto';
import { createHash } from 'node:crypto';
import type { Stats } from 'node:fs';
import { closeSync, constants, lstatSync, openSync, readSync, readdirSync, writeSync } from 'node:fs';
import { parentPort } from 'node:worker_threads';
import { EngineError, cancelled, messageOf } from '@flotilla/errors';
import {
  TarApplier,
  TarParser,
  TarWriter,
  compareTrees,
  copyMergedTree,
  fsPath,
  listChanges,
  packChanges,
  packTree,
} from '@flotilla/layer-tar';
import type { ChangeOptions, TreeChange } from '@flotilla/layer-tar';
import { CLONE_FS, chdir, chroot, fchdir, hasCode, syncfs, umask, unshare } from '@flotilla/sys';
import { engineMadePaths } from './engine-made.js';
import { ArrivingReader } from './arriving-reader.js';
import { FollowingReader } from './following-reader.js';
import type { LayerReply, LayerTask, LayerTaskResult, LayerTree } from './layer-tasks.js';

// A thread that reads and writes layers with blocking calls, one task at a time (see LayerWorkers). It has a root
// directory of its own, changed to the layer's while unpacking, so it must not use asynchronous fs calls: those would
// run in pool threads that have the host's root.

const chunkBytes = 1 << 20;
const chunk = Buffer.allocUnsafe(chunkBytes);

unshare(CLONE_FS);
umask(0);
const hostRoot = openSync('/', constants.O_RDONLY | constants.O_DIRECTORY);
createHash('sha256').update('').digest(); // OpenSSL loads what it needs while the host's files are there

parentPort?.on('message', (task: LayerTask) => {
  parentPort?.postMessage(replyTo(task));
});

function replyTo(task: LayerTask): LayerReply {
  try {
    return { result: run(task) };
  } catch (error) {
    if (error instanceof EngineError) return { error: { kind: error.kind, message: error.message } };
    if (hasCode(error, 'ENOSPC')) return { error: { kind: 'internal', message: 'no space left on device' } };
    return { error: { kind: 'internal', message: messageOf(error) } };
  }
}

function run(task: LayerTask): LayerTaskResult {
  switch (task.kind) {
    case 'unpack':
      return unpack(task);
    case 'ingest':
      return ingest(task);
    case 'spool':
      return spool(task.sourceFd, task.targetFd, task.stop);
    case 'pack':
      return pack(task.tree, task.as, task.outputFd, task.stop);
    case 'changes':
      return changes(task.tree, task.stop);
    case 'copy':
      return copy(task.lower, task.directory, task.stop);
    case 'measureChanges':
      return measureChanges(task.tree, task.stop);
    case 'digest':
      return digestFile(task.path, task.algorithm ?? 'sha256', task.stop);
    case 'measure':
      return measure(task.path, task.stop);
    case 'sync':
      return syncFileSystem(task.path);
  }
}

function unpack({ sourceFd, follow, directory, stop }: Extract<LayerTask, { kind: 'unpack' }>): LayerTaskResult {
  const reader = follow === undefined ? undefined : new FollowingReader(sourceFd, follow, stop);
  const read = reader === undefined ? fileReader(sourceFd) : () => reader.read(chunk);
  try {
    return unpackInto(read, directory, stop, () => undefined);
  } finally {
    reader?.close();
    for (const fd of [sourceFd, follow?.blobFd ?? -1, follow?.wakeFd ?? -1]) if (fd >= 0) closeSync(fd);
  }
}

function ingest(task: Extract<LayerTask, { kind: 'ingest' }>): LayerTaskResult {
  const { sourceFd, part, directory, compressorFd, stop } = task;
  const reader = part === undefined ? undefined : new ArrivingReader(sourceFd, part, stop);
  const read = reader === undefined ? fileReader(sourceFd) : () => reader.read(chunk);
  try {
    return unpackInto(read, directory, stop, (bytes) => writeAll(compressorFd, bytes));
  } catch (error) {
    // What follows it is somebody else's.
    if (error instanceof EngineError && error.kind !== 'cancelled') reader?.drain(chunk);
    throw error;
  } finally {
    for (const fd of [sourceFd, part?.wakeFd ?? -1]) if (fd >= 0) closeSync(fd);
    closeSync(compressorFd);
  }
}

function unpackInto(
  read: () => number,
  directory: string,
  stop: Int32Array,
  handOn: (bytes: Buffer) => void,
): LayerTaskResult {
  const hash = createHash('sha256');
  const applier = new TarApplier({ root: '/', whiteouts: 'overlay', umaskIsZero: true });
  const parser = new TarParser(applier);
  let readBytes = 0;
  chroot(directory);
  try {
    chdir('/');
    readBytes = readAll(read, hash, stop, (bytes) => {
      // The compressor works on it while it is unpacked here.
      handOn(bytes);
      parser.write(bytes);
    });
    parser.end();
    applier.finish();
  } finally {
    applier.abort();
    fchdir(hostRoot);
    chroot('.');
  }
  return { digest: `sha256:${hash.digest('hex')}`, readBytes, fileBytes: applier.fileBytes };
}

function spool(sourceFd: number, targetFd: number, stop: Int32Array): LayerTaskResult {
  const hash = createHash('sha256');
  try {
    const readBytes = readAll(fileReader(sourceFd), hash, stop, (bytes) => writeAll(targetFd, bytes));
    return { digest: `sha256:${hash.digest('hex')}`, readBytes, fileBytes: 0 };
  } finally {
    closeSync(sourceFd);
    closeSync(targetFd);
  }
}

function pack(
  { upper, lower, isCopy }: LayerTree,
  as: 'layer' | 'root file system',
  outputFd: number,
  stop: Int32Array,
): LayerTaskResult {
  let writtenBytes = 0;
  try {
    const writer = new TarWriter((bytes) => {
      checkStop(stop);
      writeAll(outputFd, bytes);
      writtenBytes += bytes.length;
    });
    const onEntry = (): void => checkStop(stop);
    const top = bytePath(upper);
    const below = lower.map(bytePath);
    if (as === 'layer' && isCopy) {
      packChanges(top, below, writer, changeOptions(top, below, isCopy, stop));
    } else if (as === 'layer') {
      const made = engineMadePaths(top, below, isCopy);
      packTree(top, writer, { whiteouts: 'overlay', include: (path) => !made.has(path), onEntry });
    } else packTree(top, writer, { whiteouts: 'literal', ...(isCopy ? {} : { lower: below }), onEntry });
    writer.finish();
  } finally {
    closeSync(outputFd);
  }
  return { digest: '', readBytes: writtenBytes, fileBytes: 0 };
}

function changes(tree: LayerTree, stop: Int32Array): LayerTaskResult {
  return { digest: '', readBytes: 0, fileBytes: 0, changes: changesOf(tree, stop) };
}

function changesOf({ upper, lower, isCopy }: LayerTree, stop: Int32Array): TreeChange[] {
  const top = bytePath(upper);
  const below = lower.map(bytePath);
  const find = isCopy ? compareTrees : listChanges;
  return find(top, below, changeOptions(top, below, isCopy, stop));
}

function changeOptions(top: string, below: string[], isCopy: boolean, stop: Int32Array): ChangeOptions {
  const made = engineMadePaths(top, below, isCopy);
  return { include: (path) => !made.has(path), onEntry: () => checkStop(stop) };
}

function copy(lower: readonly string[], directory: string, stop: Int32Array): LayerTaskResult {
  copyMergedTree(lower.map(bytePath), bytePath(directory), () => checkStop(stop));
  return syncFileSystem(directory);
}

/** As the tar code has paths: one character per byte. */
const bytePath = (path: string): string => Buffer.from(path).toString('latin1');

function writeAll(fd: number, bytes: Buffer): void {
  for (let from = 0; from < bytes.length;) from += writeSync(fd, bytes, from);
}

function checkStop(stop: Int32Array): void {
  if (Atomics.load(stop, 0) !== 0) throw cancelled('cancelled');
}

function digestFile(path: string, algorithm: string, stop: Int32Array): LayerTaskResult {
  const hash = createHash(algorithm);
  const fd = openSync(path, 'r');
  try {
    const readBytes = readAll(fileReader(fd), hash, stop, () => undefined);
    return { digest: `${algorithm}:${hash.digest('hex')}`, readBytes, fileBytes: 0 };
  } finally {
    closeSync(fd);
  }
}

function measureChanges(tree: LayerTree, stop: Int32Array): LayerTaskResult {
  const sum = new SizeSum();
  for (const { path, kind } of changesOf(tree, stop)) {
    if (kind === 'deleted') continue;
    const stats = lstatSync(fsPath(bytePath(tree.upper) + path), { throwIfNoEntry: false });
    if (stats?.isDirectory() === false) sum.add(stats);
  }
  return { digest: '', readBytes: 0, fileBytes: sum.bytes };
}

/** Counts as Docker does: files with several names once. */
class SizeSum {
  bytes = 0;
  readonly #counted = new Set<string>();

  add(stats: Stats): void {
    if (stats.nlink > 1) {
      const inode = `${stats.dev}:${stats.ino}`;
      if (this.#counted.has(inode)) return;
      this.#counted.add(inode);
    }
    this.bytes += stats.size;
  }
}

/** Counts no directories. */
function measure(root: string, stop: Int32Array): LayerTaskResult {
  const sum = new SizeSum();
  const pending = [root];
  for (let directory = pending.pop(); directory !== undefined; directory = pending.pop()) {
    checkStop(stop);
    for (const name of readdirIfPresent(directory)) {
      const path = `${directory}/${name}`;
      const stats = lstatSync(fsPath(path), { throwIfNoEntry: false });
      if (stats === undefined) continue;
      if (stats.isDirectory()) {
        pending.push(path);
        continue;
      }
      sum.add(stats);
    }
  }
  return { digest: '', readBytes: 0, fileBytes: sum.bytes };
}

/** Containers go on removing things while they are measured. */
function readdirIfPresent(directory: string): string[] {
  try {
    return readdirSync(fsPath(directory), { encoding: 'latin1' });
  } catch (error) {
    if (hasCode(error, 'ENOENT', 'ENOTDIR')) return [];
    throw error;
  }
}

function syncFileSystem(path: string): LayerTaskResult {
  const fd = openSync(path, 'r');
  try {
    syncfs(fd);
  } finally {
    closeSync(fd);
  }
  return { digest: '', readBytes: 0, fileBytes: 0 };
}

/** Fills `chunk` from a descriptor; gives how many bytes, 0 at the end. */
const fileReader = (fd: number) => () => readSync(fd, chunk, 0, chunkBytes, null);

/** Reads to the end, hashing everything; `take` must be done with the bytes when it returns. */
function readAll(read: () => number, hash: Hash, stop: Int32Array, take: (bytes: Buffer) => void): number {
  let total = 0;
  for (;;) {
    checkStop(stop);
    const count = read();
    if (count === 0) return total;
    total += count;
    const bytes = chunk.subarray(0, count);
    hash.update(bytes);
    take(bytes);
  }
}
