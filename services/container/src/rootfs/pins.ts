import { closeSync, fstatSync, mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { getSystemErrorMap } from 'node:util';
import { internal, invalidArgument, messageOf } from '@flotilla/errors';
import {
  attachTree,
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

/** Where the pins of a bundle lie. */
export function pinDirectory(rootfs: string): string {
  return join(dirname(rootfs), 'pins');
}

/**
 * Mount what `path` means below `base` at `directory/name`: what is mounted is what was looked up, whoever renames what afterwards.
 *
 * @returns where it is
 * @throws EngineError `invalidArgument` in dockerd's words
 */
export function makePin(base: string, path: string, directory: string, name: string): string {
  const fd = openIn(base, path);
  try {
    const target = join(directory, name);
    mkdirSync(directory, { recursive: true, mode: 0o700 });
    if (fstatSync(fd).isDirectory()) mkdirSync(target, { recursive: true });
    else writeFileSync(target, '');
    attachTree(fd, target);
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
export function makeImagePin(lower: string[], path: string, directory: string, name: string): string {
  const target = join(directory, path === '' ? name : `${name}-image`);
  mkdirSync(target, { recursive: true, mode: 0o700 });
  try {
    mountOverlay({ lower, target, readOnly: true });
  } catch (cause) {
    throw internal(`the image cannot be mounted: ${messageOf(cause)}`, { cause });
  }
  return path === '' ? target : makePin(target, path, directory, name);
}

/** Mount a tmpfs as /dev/shm is one, at `directory/name`. @returns where it is */
export function mountSharedMemory(sizeBytes: bigint, directory: string, name: string): string {
  const target = join(directory, name);
  mkdirSync(target, { recursive: true, mode: 0o700 });
  mount('shm', target, 'tmpfs', MS_NOSUID | MS_NOEXEC | MS_NODEV, `mode=1777,size=${sizeBytes}`);
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
