import { closeSync, constants, mkdirSync, openSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import {
  attachClone,
  attachTree,
  cloneMount,
  inOwnMounts,
  mount,
  mountOverlay,
  O_CLOEXEC,
  O_PATH,
} from '@flotilla/sys';
import { asRootOf, type IdMap } from './id-map.js';

/** Layers of an overlay, topmost first; without `writable` it is read-only. */
export interface MappedLayers {
  lower: readonly string[];
  /** In one directory. */
  writable?: { upper: string; work: string };
}

/**
 * Mount an overlay whose files are shown with the container's ids. For threads that have unshared `CLONE_FS`.
 *
 * An overlay takes its layers' ids as its layers' mounts show them, and keeps mounts of its own of them: so the mapped ones stand, in a mount namespace
 * that ends with this call, only while it is made. It writes as whoever mounts it, hence as the container's root.
 */
export function mountMappedOverlay({ lower, writable }: MappedLayers, target: string, idMap: IdMap): void {
  const overlay = inOwnMounts(() => {
    mount('tmpfs', target, 'tmpfs', 0, 'mode=0700');
    const show = (source: string, name: string): string => {
      const place = join(target, name);
      mkdirSync(place);
      showMapped(source, place, idMap);
      return place;
    };
    const layers = lower.map((directory, at) => show(directory, String(at)));
    const top = writable === undefined ? {} : showWritable(writable, (directory) => show(directory, 'writable'));
    const merged = join(target, 'merged');
    mkdirSync(merged);
    return asRootOf(idMap, () => {
      mountOverlay({ lower: layers, ...top, target: merged, readOnly: writable === undefined });
      return withPlace(merged, cloneMount);
    });
  });
  try {
    attachClone(overlay, target);
  } finally {
    closeSync(overlay);
  }
}

/** Show the directory `source` at `target` with the container's ids. */
export function showMapped(source: string, target: string, { fd: idMap }: IdMap): void {
  withPlace(source, (fd) => attachTree(fd, target, { idMap }));
}

/** One mount for both: the kernel renames from one to the other. */
function showWritable(
  { upper, work }: NonNullable<MappedLayers['writable']>,
  show: (directory: string) => string,
): { upper: string; work: string } {
  if (dirname(upper) !== dirname(work)) throw new Error(`${upper} and ${work} lie in different directories`);
  const here = show(dirname(upper));
  return { upper: join(here, basename(upper)), work: join(here, basename(work)) };
}

function withPlace<T>(directory: string, fn: (fd: number) => T): T {
  const fd = openSync(directory, O_PATH | O_CLOEXEC | constants.O_DIRECTORY);
  try {
    return fn(fd);
  } finally {
    closeSync(fd);
  }
}
