import { Buffer } from 'node:buffer';
import {
  type BigIntStats,
  chmodSync,
  chownSync,
  constants,
  copyFileSync,
  lchownSync,
  linkSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readlinkSync,
  realpathSync,
  symlinkSync,
} from 'node:fs';
import { getXattr, hasCode, type IdPair, listXattrs, mkfifo, mknod, setXattr, utimensat } from '@flotilla/sys';
import type { ThreadRoot } from './thread-root.js';

/**
 * Copy the tree that the root file system has at `destination` into the directory `volume` if that is empty, with owners, modes, times,
 * extended attributes and hard links; the volume's own directory takes those of the source, as dockerd does.
 *
 * Nothing can lead outside: the source path is resolved with the image as root and then walked without following links, and everything
 * is written with the volume as root, so that a link which another container plants there meanwhile stays inside it.
 *
 * @param ownerOf whom a copy belongs to, by the original's owner
 *
 * @returns the number of entries copied.
 */
export function copyUp(
  root: ThreadRoot,
  rootfs: string,
  destination: string,
  volume: string,
  ownerOf: OwnerOf = (owner) => owner,
): number {
  const source = root.within(rootfs, undefined, () => resolveDirectory(destination));
  if (source === undefined) return 0;
  return root.within(volume, rootfs, () => {
    if (readdirSync('/').length > 0) return 0;
    const from = Buffer.from(source === '/' ? '.' : source.slice(1));
    const links = new Map<string, Buffer>();
    const copied = copyChildren(from, Buffer.from('/'), { links, ownerOf });
    copyMetadata(from, Buffer.from('/'), lstatSync(from, { bigint: true }), ownerOf);
    return copied;
  });
}

/** The canonical path of a directory inside the present root, or nothing when there is none. */
function resolveDirectory(path: string): string | undefined {
  try {
    const real = realpathSync.native(path);
    return lstatSync(real).isDirectory() ? real : undefined;
  } catch (error) {
    if (hasCode(error, 'ENOENT', 'ENOTDIR', 'ELOOP', 'EACCES')) return undefined;
    throw error;
  }
}

type OwnerOf = (owner: IdPair) => IdPair;

interface Copying {
  /** First copy of each file with several links. */
  links: Map<string, Buffer>;
  ownerOf: OwnerOf;
}

function copyChildren(from: Buffer, to: Buffer, copying: Copying): number {
  let copied = 0;
  for (const name of readdirSync(from, { encoding: 'buffer' })) {
    copied += copyEntry(child(from, name), child(to, name), copying);
  }
  return copied;
}

function copyEntry(from: Buffer, to: Buffer, copying: Copying): number {
  const { links, ownerOf } = copying;
  const stat = lstatSync(from, { bigint: true });
  const key = `${stat.dev}:${stat.ino}`;
  if (!stat.isDirectory() && stat.nlink > 1n) {
    const first = links.get(key);
    if (first !== undefined) {
      linkSync(first, to);
      return 1;
    }
    links.set(key, to);
  }
  let below = 0;
  if (stat.isDirectory()) {
    mkdirSync(to, { mode: 0o700 });
    below = copyChildren(from, to, copying);
  } else if (stat.isSymbolicLink()) {
    symlinkSync(readlinkSync(from, { encoding: 'buffer' }), to);
  } else if (stat.isFile()) {
    copyFileSync(from, to, constants.COPYFILE_EXCL | constants.COPYFILE_FICLONE);
  } else if (stat.isFIFO()) {
    mkfifo(to, 0o600);
  } else if (stat.isCharacterDevice() || stat.isBlockDevice()) {
    mknod(to, Number(stat.mode), stat.rdev);
  } else {
    return 0; // a socket means nothing without its process
  }
  copyMetadata(from, to, stat, ownerOf);
  return below + 1;
}

// The order matters: a change of owner clears set-user-id bits and capabilities.
function copyMetadata(from: Buffer, to: Buffer, stat: BigIntStats, ownerOf: OwnerOf): void {
  const { uid, gid } = ownerOf({ uid: Number(stat.uid), gid: Number(stat.gid) });
  if (stat.isSymbolicLink()) {
    lchownSync(to, uid, gid);
  } else {
    chownSync(to, uid, gid);
    for (const name of listXattrs(from)) {
      if (name.startsWith('trusted.overlay.')) continue;
      const value = getXattr(from, name);
      if (value !== undefined) setXattr(to, name, value);
    }
    chmodSync(to, Number(stat.mode) & 0o7777);
  }
  utimensat(to, splitNs(stat.mtimeNs), splitNs(stat.atimeNs));
}

function splitNs(ns: bigint): { seconds: number; nanoseconds: number } {
  const nanoseconds = ((ns % 1_000_000_000n) + 1_000_000_000n) % 1_000_000_000n;
  return { seconds: Number((ns - nanoseconds) / 1_000_000_000n), nanoseconds: Number(nanoseconds) };
}

function child(directory: Buffer, name: Buffer): Buffer {
  const separator = directory.at(-1) === 0x2f ? '' : '/';
  return Buffer.concat([directory, Buffer.from(separator), name]);
}
