import { createHash } from 'node:crypto';
import {
  closeSync,
  fchownSync,
  fstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { getSystemErrorMap } from 'node:util';
import { internal, invalidArgument, messageOf } from '@flotilla/errors';
import {
  attachTree,
  bindMount,
  hasCode,
  mount,
  mountOverlay,
  MS_NODEV,
  MS_NOEXEC,
  MS_NOSUID,
  openBeneath,
  SysError,
  umountAll,
} from '@flotilla/sys';
import type { IdMap } from './id-map.js';
import { mountMappedOverlay } from './mapped-overlay.js';

/** Whose the files of a pin are shown to be. */
export interface PinOwners {
  /** Shown with these ids where the file system can; where it cannot, as with `newTo`. */
  idMap?: IdMap;
  /** The pinned directory is given to this owner while it is new and empty. */
  newTo?: IdMap['root'];
}

/** Where the pins of a bundle lie. */
export function pinDirectory(rootfs: string): string {
  return join(dirname(rootfs), 'pins');
}

/** File name of a pin: one per destination. */
export const pinName = (destination: string): string => createHash('sha256').update(destination).digest('hex');

/**
 * Mount what `path` means below `base` at `directory/name`: what is mounted is what was looked up, whoever renames what afterwards.
 *
 * @returns where it is
 * @throws EngineError `invalidArgument` in dockerd's words
 */
export function makePin(base: string, path: string, directory: string, name: string, owners: PinOwners = {}): string {
  const fd = openIn(base, path);
  try {
    const target = join(directory, name);
    mkdirSync(directory, { recursive: true, mode: 0o700 });
    if (fstatSync(fd).isDirectory()) mkdirSync(target, { recursive: true });
    else writeFileSync(target, '');
    attachWith(fd, target, owners);
    return target;
  } finally {
    closeSync(fd);
  }
}

/**
 * Mount the overlay of `lower` (topmost first) at `directory/name`, read-only; or what `path` means in it, as `makePin`.
 *
 * @returns where it is
 * @throws EngineError `invalidArgument` in dockerd's words; `internal` when the kernel refuses the overlay
 */
export function makeImagePin(lower: string[], path: string, directory: string, name: string, idMap?: IdMap): string {
  const target = join(directory, path === '' ? name : `${name}-image`);
  mkdirSync(target, { recursive: true, mode: 0o700 });
  try {
    if (idMap === undefined) mountOverlay({ lower, target, readOnly: true });
    else mountMappedOverlay({ lower }, target, idMap);
  } catch (cause) {
    throw internal(`the image cannot be mounted: ${messageOf(cause)}`, { cause });
  }
  return path === '' ? target : makePin(target, path, directory, name);
}

/** Mount a tmpfs as /dev/shm is one, of this owner, at `directory/name`. @returns where it is */
export function mountSharedMemory(
  sizeBytes: bigint,
  directory: string,
  name: string,
  { uid, gid }: IdMap['root'] = { uid: 0, gid: 0 },
): string {
  const target = join(directory, name);
  mkdirSync(target, { recursive: true, mode: 0o700 });
  mount('shm', target, 'tmpfs', MS_NOSUID | MS_NOEXEC | MS_NODEV, `mode=1777,size=${sizeBytes},uid=${uid},gid=${gid}`);
  return target;
}

function attachWith(fd: number, target: string, { idMap, newTo = idMap?.root }: PinOwners): void {
  if (idMap !== undefined) {
    try {
      attachTree(fd, target, { idMap: idMap.fd });
      return;
    } catch (error) {
      // A network file system, mostly.
      if (!hasCode(error, 'EINVAL')) throw error;
    }
  }
  attachTree(fd, target);
  if (newTo !== undefined) giveIfNew(target, newTo);
}

/** As dockerd does with every volume: without that, the container's root could write nothing. */
function giveIfNew(directory: string, { uid, gid }: IdMap['root']): void {
  const opened = openSync(directory, 'r');
  try {
    const stats = fstatSync(opened);
    const isNew = stats.isDirectory() && stats.uid === 0 && stats.gid === 0 && readdirSync(directory).length === 0;
    if (isNew) fchownSync(opened, uid, gid);
  } finally {
    closeSync(opened);
  }
}

/**
 * Keep the namespace behind `source` alive in `directory`, under a name that no other namespace has.
 *
 * @returns where it is
 */
export function pinNamespace(source: string, directory: string): string {
  const target = join(directory, `namespace-${statSync(source).ino}`);
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  writeFileSync(target, '');
  bindMount(source, target);
  return target;
}

/** Unmount every pin and remove their directory; none is fine. What stays mounted is never looked into. */
export function removePins(directory: string): void {
  let names: string[];
  try {
    names = readdirSync(directory);
  } catch (error) {
    if (hasCode(error, 'ENOENT')) return;
    throw error;
  }
  for (const name of names) umountAll(join(directory, name));
  rmSync(directory, { recursive: true });
}

function openIn(base: string, path: string): number {
  try {
    return openBeneath(base, path);
  } catch (cause) {
    if (!(cause instanceof SysError)) throw cause;
    if (hasCode(cause, 'EXDEV')) {
      throw invalidArgument(`path concatenation escapes the base directory, base: "${base}", subpath: "${path}"`, {
        cause,
      });
    }
    const text = getSystemErrorMap().get(-cause.errno)?.[1] ?? `errno ${cause.errno}`;
    throw invalidArgument(`cannot access path ${join(base, path)}: ${text}`, { cause });
  }
}
