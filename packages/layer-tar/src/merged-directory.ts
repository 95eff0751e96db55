import type { BigIntStats } from 'node:fs';
import { lstatSync, readdirSync } from 'node:fs';
import { getXattr, hasCode } from '@flotilla/sys';
import { fsPath } from './byte-paths.js';

/**
 * Directories that an overlay shows as one, topmost first; latin1 paths. Made of directories alone: neither redirects nor
 * metadata-only copies are looked for, as our overlays make none.
 */
export type MergedDirectory = readonly string[];

/** What an overlay shows under one name. */
export interface MergedChild {
  /** The topmost of that name. */
  readonly full: string;
  readonly stats: BigIntStats;
  /** What is shown in it; empty for everything but directories. */
  readonly directory: MergedDirectory;
}

/** Every name in any of the directories, also hidden ones, with those that have it; sorted by bytes. */
export function mergedNames(directory: MergedDirectory): [name: string, holders: MergedDirectory][] {
  const [only] = directory;
  if (directory.length === 1 && only !== undefined) return namesIn(only).map((name) => [name, directory]);
  const holders = new Map<string, string[]>();
  for (const part of directory) {
    for (const name of namesIn(part)) {
      const known = holders.get(name);
      if (known === undefined) holders.set(name, [part]);
      else known.push(part);
    }
  }
  return [...holders].sort(([a], [b]) => (a < b ? -1 : 1));
}

/** What is shown under the name: undefined when there is nothing, or a whiteout hides it. */
export function mergedChild(directory: MergedDirectory, name: string): MergedChild | undefined {
  let top: { full: string; stats: BigIntStats } | undefined;
  const merged: string[] = [];
  for (const part of directory) {
    const full = `${part}/${name}`;
    const stats = statOf(full);
    if (stats === undefined) continue;
    if (isWhiteout(stats)) break;
    if (!stats.isDirectory()) {
      top ??= { full, stats };
      break;
    }
    top ??= { full, stats };
    merged.push(full);
    if (isOpaque(full)) break;
  }
  return top === undefined ? undefined : { ...top, directory: merged };
}

/** Overlay's mark for a name that is gone: character device 0:0. */
export const isWhiteout = (stats: BigIntStats): boolean => stats.isCharacterDevice() && stats.rdev === 0n;

/** Whether an overlay shows nothing of the directories below this one. */
export function isOpaque(full: string): boolean {
  return present(() => getXattr(fsPath(full), 'trusted.overlay.opaque'))?.toString('latin1') === 'y';
}

/** Undefined when the path has gone. */
export function statOf(full: string): BigIntStats | undefined {
  return present(() => lstatSync(fsPath(full), { bigint: true }));
}

/** Sorted by bytes; none when it is no directory any more. */
export function namesIn(directory: string): string[] {
  return present(() => readdirSync(fsPath(directory), { encoding: 'latin1' }))?.sort() ?? [];
}

/** What `action` finds, or undefined when the path has gone meanwhile. */
export function present<T>(action: () => T): T | undefined {
  try {
    return action();
  } catch (error) {
    if (hasCode(error, 'ENOENT', 'ENOTDIR', 'ELOOP')) return undefined;
    throw error;
  }
}
