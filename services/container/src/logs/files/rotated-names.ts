import { readdirSync, renameSync, rmSync } from 'node:fs';
import { basename, dirname } from 'node:path';

/** One file of a log. Index 0 is the current one, 1 the newest of the rotated. */
export interface LogName {
  readonly index: number;
  readonly path: string;
  readonly isCompressed: boolean;
}

/** The files of the log at `path` that exist, oldest first. Where a crash left a file both plain and compressed, both are named. */
export function listLogNames(path: string): LogName[] {
  const directory = dirname(path);
  const base = basename(path);
  let entries: string[];
  try {
    entries = readdirSync(directory);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
  const names: LogName[] = [];
  for (const entry of entries) {
    if (!entry.startsWith(base)) continue;
    const match = /^(?:|\.([1-9]\d{0,5})(\.gz)?)$/.exec(entry.slice(base.length));
    if (match === null) continue;
    names.push({
      index: Number(match[1] ?? 0),
      path: `${directory}/${entry}`,
      isCompressed: match[2] !== undefined,
    });
  }
  return names.sort((a, b) => b.index - a.index || Number(a.isCompressed) - Number(b.isCompressed));
}

/**
 * Make room for a new current file and put `fresh` there. Killed after any of its steps it leaves all files, perhaps with a gap between the indexes that
 * the next rotation fills, or without a current file, which whoever opens the log makes.
 */
export function rotateNames(path: string, fresh: string, maxFiles: number): void {
  const names = listLogNames(path);
  for (const { index, path: old } of names) if (index > 0 && index >= maxFiles) rmSync(old, { force: true });
  if (maxFiles > 1) {
    const taken = new Set(names.map(({ index }) => index));
    let free = 1;
    while (free < maxFiles - 1 && taken.has(free)) free++;
    for (const name of names) {
      if (name.index === free && free > 0) rmSync(name.path, { force: true });
    }
    for (const name of names) {
      if (name.index >= free) continue;
      renameSync(name.path, `${path}.${name.index + 1}${name.isCompressed ? '.gz' : ''}`);
    }
  }
  renameSync(fresh, path);
}

/** Take away what an earlier process left of rotations and compressions that it did not end. */
export function removeLeftovers(path: string): void {
  rmSync(`${path}.next`, { force: true });
  rmSync(`${path}.compressing`, { force: true });
  const names = listLogNames(path);
  const plain = new Set(names.filter(({ isCompressed }) => !isCompressed).map(({ index }) => index));
  for (const name of names) if (name.isCompressed && plain.has(name.index)) rmSync(name.path, { force: true });
}
