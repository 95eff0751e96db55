import { changesIn } from './list-changes.js';
import type { ChangeOptions, TreeChange } from './list-changes.js';
import type { MergedDirectory } from './merged-directory.js';
import { packTree } from './pack-tree.js';
import type { TarWriter } from './tar-writer.js';

/**
 * What a tree that began as a copy of `lower` (see copyMergedTree) has changed since, sorted by path, by the rules of
 * listChanges: both are walked, as dockerd does it for drivers without layers. A file whose content was replaced under the
 * same size and time is not found. Blocks: for worker threads.
 */
export function compareTrees(tree: string, lower: MergedDirectory, options: ChangeOptions = {}): TreeChange[] {
  return changesIn(tree, lower, 'copy', options);
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
