import type { BigIntStats } from 'node:fs';
import { getXattr } from '@flotilla/sys';
import { fsPath } from './byte-paths.js';
import { isOpaque, isWhiteout, mergedChild, mergedNames, namesIn, present, statOf } from './merged-directory.js';
import type { MergedDirectory } from './merged-directory.js';

/** One path that differs from what lies below. */
export interface TreeChange {
  /** Absolute; bytes as latin1. */
  readonly path: string;
  readonly kind: 'added' | 'modified' | 'deleted';
}

export interface ChangeOptions {
  /** Decides by the path below the root (latin1, no leading `/`): false leaves it and what is below out. */
  include?: (path: string) => boolean;
  /** Called between paths; throw to stop. */
  onEntry?: () => void;
}

/**
 * What an overlay's upper directory changes of the directories below it, sorted by path, by dockerd's rules
 * (moby pkg/archive changes.go): a file differs by mode, owner, device, size, time or capabilities, a directory by mode
 * and owner; a directory with changes inside counts as modified; what vanishes with its directory is not told again.
 * Blocks: for worker threads.
 */
export function listChanges(upper: string, lower: MergedDirectory, options: ChangeOptions = {}): TreeChange[] {
  return changesIn(upper, lower, 'overlay', options);
}

/**
 * The walk behind listChanges and compareTrees. An overlay's directory tells what is deleted by whiteouts and by being opaque; in a copy
 * whatever is missing is.
 */
export function changesIn(
  tree: string,
  lower: MergedDirectory,
  form: 'overlay' | 'copy',
  options: ChangeOptions,
): TreeChange[] {
  const isOverlay = form === 'overlay';
  const kinds = new Map<string, TreeChange['kind']>();
  const pending: { full: string; below: string; lower: MergedDirectory }[] = [{ full: tree, below: '', lower }];
  for (let level = pending.pop(); level !== undefined; level = pending.pop()) {
    const names = new Set(namesIn(level.full));
    for (const name of names) {
      const path = level.below + name;
      if (options.include?.(path) === false) continue;
      options.onEntry?.();
      const full = `${level.full}/${name}`;
      const stats = statOf(full);
      if (stats === undefined) continue;
      const before = mergedChild(level.lower, name);
      if (isOverlay && isWhiteout(stats)) {
        if (before !== undefined) kinds.set(path, 'deleted');
        continue;
      }
      if (before === undefined) kinds.set(path, 'added');
      else if (differs(stats, full, before.stats, before.full)) kinds.set(path, 'modified');
      if (stats.isDirectory()) pending.push({ full, below: `${path}/`, lower: before?.directory ?? [] });
    }
    if (level.lower.length > 0 && (!isOverlay || isOpaque(level.full))) {
      for (const [name, holders] of mergedNames(level.lower)) {
        if (!names.has(name) && mergedChild(holders, name) !== undefined) kinds.set(level.below + name, 'deleted');
      }
    }
  }
  return sortedChanges(kinds);
}

/** With the directories above each changed path. */
function sortedChanges(kinds: Map<string, TreeChange['kind']>): TreeChange[] {
  for (const path of [...kinds.keys()]) {
    for (let at = path.lastIndexOf('/'); at > 0; at = path.lastIndexOf('/', at - 1)) {
      const parent = path.slice(0, at);
      if (!kinds.has(parent)) kinds.set(parent, 'modified');
    }
  }
  return [...kinds].map(([path, kind]) => ({ path: `/${path}`, kind })).sort((a, b) => (a.path < b.path ? -1 : 1));
}

/** dockerd's rule; the paths are read for capabilities only. */
function differs(now: BigIntStats, path: string, before: BigIntStats, pathBefore: string): boolean {
  if (now.mode !== before.mode || now.uid !== before.uid || now.gid !== before.gid || now.rdev !== before.rdev) {
    return true;
  }
  if (now.isDirectory()) return false;
  if (now.size !== before.size || !isSameTime(now.mtimeNs, before.mtimeNs)) return true;
  return now.isFile() && capabilityOf(path) !== capabilityOf(pathBefore);
}

/** Archives often keep whole seconds only. */
function isSameTime(a: bigint, b: bigint): boolean {
  const second = 1_000_000_000n;
  return a === b || (a / second === b / second && (a % second === 0n || b % second === 0n));
}

function capabilityOf(path: string): string {
  return present(() => getXattr(fsPath(path), 'security.capability'))?.toString('latin1') ?? '';
}
