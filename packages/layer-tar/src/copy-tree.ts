import type { BigIntStats } from 'node:fs';
import {
  chmodSync,
  closeSync,
  constants,
  copyFileSync,
  ftruncateSync,
  lchownSync,
  linkSync,
  mkdirSync,
  openSync,
  readSync,
  readlinkSync,
  symlinkSync,
  writeSync,
} from 'node:fs';
import type { FileTime } from '@flotilla/sys';
import { getXattr, listXattrs, mkfifo, mknod, nextData, setXattr, utimensat } from '@flotilla/sys';
import { fsPath } from './byte-paths.js';
import { mergedChild, mergedNames } from './merged-directory.js';
import type { MergedDirectory } from './merged-directory.js';

const chunkBytes = 1 << 20;
const blockBytes = 512n;

/**
 * Copies what an overlay of directories shows into the directory `target` (latin1), which must be empty and keeps its own
 * mode: owners, modes, times, extended attributes, devices, hard links (within one layer) and holes are those of the source.
 * Content is shared where the file system can (FICLONE).
 *
 * Follows no link on either side. Nobody may write to the sources meanwhile. `onEntry` is called between paths and may throw.
 * Blocks: for worker threads.
 */
export function copyMergedTree(source: MergedDirectory, target: string, onEntry: () => void = () => undefined): void {
  /** First copy of each file with several links. */
  const links = new Map<string, string>();
  // An explicit stack: a tree may be as deep as its maker liked.
  const pending = [{ to: target, names: mergedNames(source), next: 0, finish: (): void => undefined }];
  for (let level = pending.at(-1); level !== undefined; level = pending.at(-1)) {
    const entry = level.names[level.next++];
    if (entry === undefined) {
      level.finish();
      pending.pop();
      continue;
    }
    const [name, holders] = entry;
    const child = mergedChild(holders, name);
    if (child === undefined) continue;
    onEntry();
    const { full, stats } = child;
    const to = `${level.to}/${name}`;
    if (stats.isDirectory()) {
      mkdirSync(fsPath(to), { mode: 0o700 });
      // What is made inside changes the times.
      const finish = (): void => copyMetadata(full, to, stats);
      pending.push({ to, names: mergedNames(child.directory), next: 0, finish });
      continue;
    }
    if (stats.nlink > 1n) {
      const key = `${stats.dev}:${stats.ino}`;
      const first = links.get(key);
      if (first !== undefined) {
        linkSync(fsPath(first), fsPath(to));
        continue;
      }
      links.set(key, to);
    }
    if (makeNode(full, to, stats)) copyMetadata(full, to, stats);
  }
}

/** False for a socket, which no layer has. */
function makeNode(full: string, to: string, stats: BigIntStats): boolean {
  if (stats.isFile()) copyContent(full, to, stats);
  else if (stats.isSymbolicLink()) symlinkSync(readlinkSync(fsPath(full), { encoding: 'buffer' }), fsPath(to));
  else if (stats.isFIFO()) mkfifo(fsPath(to), 0o600);
  else if (stats.isCharacterDevice() || stats.isBlockDevice()) mknod(fsPath(to), Number(stats.mode), stats.rdev);
  else return false;
  return true;
}

function copyContent(full: string, to: string, stats: BigIntStats): void {
  const [source, target] = [fsPath(full), fsPath(to)];
  if (stats.blocks * blockBytes >= stats.size) {
    copyFileSync(source, target, constants.COPYFILE_EXCL | constants.COPYFILE_FICLONE);
    return;
  }
  try {
    copyFileSync(source, target, constants.COPYFILE_EXCL | constants.COPYFILE_FICLONE_FORCE);
  } catch {
    copyAroundHoles(source, target, Number(stats.size));
  }
}

function copyAroundHoles(source: string | Buffer, target: string | Buffer, size: number): void {
  const from = openSync(source, constants.O_RDONLY | constants.O_NOFOLLOW);
  try {
    const to = openSync(target, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL, 0o600);
    try {
      const chunk = Buffer.allocUnsafe(chunkBytes);
      for (let data = nextData(from, 0); data !== undefined; data = nextData(from, data.end)) {
        for (let at = data.start; at < data.end;) {
          const count = readSync(from, chunk, 0, Math.min(chunkBytes, data.end - at), at);
          if (count === 0) throw new Error('a layer became shorter while it was copied');
          for (let done = 0; done < count;) done += writeSync(to, chunk, done, count - done, at + done);
          at += count;
        }
      }
      ftruncateSync(to, size);
    } finally {
      closeSync(to);
    }
  } finally {
    closeSync(from);
  }
}

// The order matters: a change of owner clears set-user-id bits and capabilities.
function copyMetadata(full: string, to: string, stats: BigIntStats): void {
  const [source, target] = [fsPath(full), fsPath(to)];
  lchownSync(target, Number(stats.uid), Number(stats.gid));
  for (const name of listXattrs(source)) {
    if (name.startsWith('trusted.overlay.') || name === 'security.selinux') continue;
    const value = getXattr(source, name);
    if (value !== undefined) setXattr(target, name, value);
  }
  if (!stats.isSymbolicLink()) chmodSync(target, Number(stats.mode) & 0o7777);
  utimensat(target, timeOf(stats.mtimeNs), timeOf(stats.atimeNs));
}

function timeOf(ns: bigint): FileTime {
  const second = 1_000_000_000n;
  const nanoseconds = ((ns % second) + second) % second;
  return { seconds: Number((ns - nanoseconds) / second), nanoseconds: Number(nanoseconds) };
}
