import { isOpaque, mergedChild, namesIn, statOf } from '@flotilla/layer-tar';
import type { MergedChild } from '@flotilla/layer-tar';

/** Files that are made as mount points for what every container has of its own. */
const files = ['.dockerenv', 'etc/hosts', 'etc/hostname', 'etc/resolv.conf'];
const directories = ['dev', 'etc', 'proc', 'sys'];

/**
 * The paths (below the root) in a container's upper directory that the engine put there, not the container: empty mount
 * points, and directories that hold nothing else. dockerd has them in a layer of their own below the container's, so that
 * neither diff nor commit shows them; the container's own mount points show with both. In a whole copy of the layers
 * (`isCopy`) a directory that was there before is none of them, even if nothing else is left in it.
 */
export function engineMadePaths(upper: string, lower: readonly string[], isCopy: boolean): Set<string> {
  const made = new Set<string>();
  for (const path of files) {
    const stats = statOf(`${upper}/${path}`);
    if (stats?.isFile() === true && stats.size === 0n && stats.uid === 0n && lookUp(lower, path) === undefined) {
      made.add(path);
    }
  }
  for (const path of directories) {
    const full = `${upper}/${path}`;
    const stats = statOf(full);
    if (stats?.isDirectory() !== true || isOpaque(full)) continue;
    if (!namesIn(full).every((name) => made.has(`${path}/${name}`))) continue;
    const before = lookUp(lower, path)?.stats;
    if (isCopy && before !== undefined) continue;
    const isUntouched =
      before === undefined
        ? stats.uid === 0n && stats.gid === 0n && (stats.mode & 0o7777n) === 0o755n
        : before.mode === stats.mode && before.uid === stats.uid && before.gid === stats.gid;
    if (isUntouched) made.add(path);
  }
  return made;
}

function lookUp(lower: readonly string[], path: string): MergedChild | undefined {
  let directory = lower;
  let found: MergedChild | undefined;
  for (const name of path.split('/')) {
    found = mergedChild(directory, name);
    if (found === undefined) return undefined;
    ({ directory } = found);
  }
  return found;
}
