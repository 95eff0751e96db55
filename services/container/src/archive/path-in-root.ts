import type { BigIntStats } from 'node:fs';
import { lstatSync, readlinkSync } from 'node:fs';
import { posix } from 'node:path';
import { invalidArgument, notFound } from '@flotilla/errors';
import { fsPath } from '@flotilla/layer-tar';
import { hasCode } from '@flotilla/sys';
import { noSuchPath, type PathInfo } from './archive-jobs.js';

// Paths are latin1 strings of bytes, absolute, in the present root.

const maxLinks = 255;

/** As Linux has it, Go's os.FileMode: the file type and what is beyond the nine permission bits. */
const goBits = { directory: 0x8000_0000, symlink: 0x0800_0000, device: 0x0400_0000, fifo: 0x0200_0000 } as const;
const goSocket = 0x0100_0000;
const goSetuid = 0x0080_0000;
const goSetgid = 0x0040_0000;
const goCharDevice = 0x0020_0000;
const goSticky = 0x0010_0000;

/** Go's os.FileMode of a file. */
export function goFileMode(stats: BigIntStats): number {
  const mode = Number(stats.mode);
  let bits = mode & 0o777;
  if (stats.isDirectory()) bits += goBits.directory;
  else if (stats.isSymbolicLink()) bits += goBits.symlink;
  else if (stats.isCharacterDevice()) bits += goBits.device + goCharDevice;
  else if (stats.isBlockDevice()) bits += goBits.device;
  else if (stats.isFIFO()) bits += goBits.fifo;
  else if (stats.isSocket()) bits += goSocket;
  if ((mode & 0o4000) !== 0) bits += goSetuid;
  if ((mode & 0o2000) !== 0) bits += goSetgid;
  if ((mode & 0o1000) !== 0) bits += goSticky;
  return bits;
}

/** A path cleaned and made absolute, but with its closing `/` or `/.`, which say that it must be a directory. */
export function absolutePath(path: string): string {
  const clean = posix.join('/', path).replace(/(.)\/$/, '$1');
  if (posix.basename(path) === '.') return clean === '/' ? '/.' : `${clean}/.`;
  return path.endsWith('/') && clean !== '/' ? `${clean}/` : clean;
}

/**
 * Where a path leads, all links followed inside the root, a missing rest kept as it is: Docker's FollowSymlinkInScope.
 *
 * @throws EngineError `invalidArgument` for too many links or a file in place of a directory.
 */
export function followLinks(path: string): string {
  const pending = path.split('/').reverse();
  let at = '';
  let links = 0;
  for (let part = pending.pop(); part !== undefined; part = pending.pop()) {
    if (part === '' || part === '.') continue;
    if (part === '..') {
      at = at.slice(0, Math.max(at.lastIndexOf('/'), 0));
      continue;
    }
    const next = `${at}/${part}`;
    const stats = lstatInRoot(next);
    if (stats?.isSymbolicLink() !== true) {
      at = next;
      continue;
    }
    if (++links > maxLinks) throw invalidArgument(`${shown(path)}: too many levels of symbolic links`);
    const target = readlinkSync(fsPath(next), 'latin1');
    if (target.startsWith('/')) at = '';
    pending.push(...target.split('/').reverse());
  }
  return at === '' ? '/' : at;
}

/** What a path is, and where: links on the way are followed, one at its end is not unless `/` follows. */
export interface FoundPath {
  info: PathInfo;
  /** Clean, without links but perhaps the last part. */
  real: string;
}

/** @throws EngineError `notFound` (`noSuchPath`); `invalidArgument` for a file with a closing `/`. */
export function findPath(path: string): FoundPath {
  const absolute = absolutePath(path);
  const slash = absolute.lastIndexOf('/');
  const directory = followLinks(absolute.slice(0, slash + 1));
  const base = absolute.slice(slash + 1);
  const mustBeDirectory = base === '' || base === '.';
  const real = mustBeDirectory ? directory : posix.join(directory, base);
  const stats = lstatInRoot(real);
  if (stats === undefined) throw notFound(noSuchPath);
  if (mustBeDirectory && !stats.isDirectory()) throw invalidArgument(`${shown(absolute)}: not a directory`);
  const info: PathInfo = {
    name: posix.basename(absolute) || '/',
    size: Number(stats.size),
    mode: goFileMode(stats),
    mtime: timeOf(stats.mtimeNs),
    linkTarget: stats.isSymbolicLink() ? followLinks(absolute) : '',
  };
  return { info, real };
}

/**
 * The directory that a path means, all links followed.
 *
 * @throws EngineError `notFound` (`noSuchPath`); `invalidArgument` when it is none.
 */
export function findDirectory(path: string): string {
  const real = followLinks(absolutePath(path));
  const stats = lstatInRoot(real);
  if (stats === undefined) throw notFound(noSuchPath);
  if (!stats.isDirectory()) throw invalidArgument('extraction point is not a directory');
  return real;
}

function lstatInRoot(path: string): BigIntStats | undefined {
  try {
    return lstatSync(fsPath(path), { bigint: true });
  } catch (error) {
    if (hasCode(error, 'ENOENT')) return undefined;
    if (hasCode(error, 'ENOTDIR')) throw invalidArgument(`${shown(path)}: not a directory`, { cause: error });
    if (hasCode(error, 'ENAMETOOLONG')) throw invalidArgument('file name too long', { cause: error });
    throw error;
  }
}

const shown = (path: string): string => Buffer.from(path, 'latin1').toString();

function timeOf(ns: bigint): PathInfo['mtime'] {
  const second = 1_000_000_000n;
  const nanoseconds = ((ns % second) + second) % second;
  return { seconds: Number((ns - nanoseconds) / second), nanoseconds: Number(nanoseconds) };
}
