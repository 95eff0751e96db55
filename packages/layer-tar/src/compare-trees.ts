import { differs, sortedChanges } from './list-changes.js';
import type { ChangeOptions, TreeChange } from './list-changes.js';
import { mergedChild, mergedNames, namesIn, statOf } from './merged-directory.js';
import type { MergedDirectory } from './merged-directory.js';
import { packTree } from './pack-tree.js';
import type { TarWriter } from './tar-writer.js';

/**
 * What a tree that began as a copy of `lower` (see copyMergedTree) has changed since, sorted by path, by the rules of
 * listChanges: both are walked, as dockerd does it for drivers without layers. A file whose content was replaced under the
 * same size and time is not found. Blocks: for worker threads.
 */
export function compareTrees(tree: string, lower: MergedDirectory, options: ChangeOptions = {}): TreeChange[] {
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
      if (before === undefined) kinds.set(path, 'added');
      else if (differs(stats, full, before.stats, before.full)) kinds.set(path, 'modified');
      if (stats.isDirectory()) pending.push({ full, below: `${path}/`, lower: before?.directory ?? [] });
    }
    for (const [name, holders] of mergedNames(level.lower)) {
      if (!names.has(name) && mergedChild(holders, name) !== undefined) kinds.set(level.below + name, 'deleted');
    }
  }
  return sortedChanges(kinds);
}

/** Writes what compareTrees finds as a layer, without the closing blocks. */
export function packChanges(
  tree: string,
  lower: MergedDirectory,
  writer: TarWriter,
  options: ChangeOptions = {},
): void {
  const changes = compareTrees(tree, lower, options);
  const kept = new Set(changes.filter(({ kind }) => kind !== 'deleted').map(({ path }) => path));
  packTree(tree, writer, {
    whiteouts: 'literal',
    include: (path) => kept.has(`/${path}`),
    ...(options.onEntry === undefined ? {} : { onEntry: options.onEntry }),
  });
  for (const { path, kind } of changes) {
    if (kind !== 'deleted') continue;
    const at = path.lastIndexOf('/') + 1;
    const name = `${path.slice(1, at)}.wh.${path.slice(at)}`;
    writer.entry({ name, type: 'file', mode: 0, uid: 0, gid: 0, mtime: { seconds: 0, nanoseconds: 0 } });
  }
}
