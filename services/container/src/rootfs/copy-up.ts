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
  renameSync,
  rmSync,
  symlinkSync,
} from 'node:fs';
import { getXattr, hasCode, type IdPair, listXattrs, mkfifo, mknod, setXattr, utimensat } from '@flotilla/sys';
import type { ThreadRoot } from './thread-root.js';

/**
 * Copy the tree that the root file system has at `destination` into the directory `volume` if that is empty, with owners, modes, times,
 * extended attributes and hard links; the volume's own directory takes those of the source, as dockerd does.
 *
 * The copy is put together in the directory `staging` of the volume and then moved, entry by entry. That directory is made first and removed last, and
 * tells of a copy that was cut: it is made again, and what had been moved stays. Never two at a time for one volume.
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
  { volume, staging, ownerOf = (owner) => owner }: CopyTarget,
): number {
  const source = root.within(rootfs, undefined, () => resolveDirectory(destination));
  if (source === undefined) return 0;
  return root.within(volume, rootfs, () => {
    const present = readdirSync('/');
    if (present.length > 0 && !present.includes(staging)) return 0;
    const place = Buffer.from(`/${staging}`);
    rmSync(place, { recursive: true, force: true });
    mkdirSync(place, { mode: 0o700 });
    const top = Buffer.from('/');
    const from = Buffer.from(source === '/' ? '.' : source.slice(1));
    const copied = copyChildren(from, place, { links: new Map(), ownerOf });
    for (const name of readdirSync(place, { encoding: 'buffer' })) {
      // What is there was moved by the copy that was cut, or is of a container that runs already.
      if (lstatSync(child(top, name), { throwIfNoEntry: false }) === undefined) {
        renameSync(child(place, name), child(top, name));
      }
    }
    const stat = lstatSync(from, { bigint: true });
    copyMetadata(from, top, stat, ownerOf);
    rmSync(place, { recursive: true });
    copyTimes(top, stat);
    return copied;
  });
}

/** Where a copy goes. */
export interface CopyTarget {
  /** Directory on the host. */
  volume: string;
  /** Name in it, see `copyUp`. */
  staging: string;
  ownerOf?: OwnerOf | undefined;
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
  copyTimes(to, stat);
}

function copyTimes(to: Buffer, { mtimeNs, atimeNs }: BigIntStats): void {
  utimensat(to, splitNs(mtimeNs), splitNs(atimeNs));
}

function splitNs(ns: bigint): { seconds: number; nanoseconds: number } {
  const nanoseconds = ((ns % 1_000_000_000n) + 1_000_000_000n) % 1_000_000_000n;
  return { seconds: Number((ns - nanoseconds) / 1_000_000_000n), nanoseconds: Number(nanoseconds) };
}

function child(directory: Buffer, name: Buffer): Buffer {
  const separator = directory.at(-1) === 0x2f ? '' : '/';
  return Buffer.concat([directory, Buffer.from(separator), name]);
}
