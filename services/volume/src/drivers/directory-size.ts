import { lstat, opendir } from 'node:fs/promises';
import { join } from 'node:path';
import { hasCode } from '@flotilla/sys';

const statsAtOnce = 32;

/**
 * Bytes of the files under `dir`, hard links counted once and directories not at all, as `docker system df` counts volumes
 * (moby/moby pkg/directory). What vanishes meanwhile is not counted.
 */
export async function directorySize(dir: string, signal?: AbortSignal): Promise<bigint> {
  const seen = new Set<string>();
  let total = 0n;
  const directories = [dir];
  for (let next = directories.pop(); next !== undefined; next = directories.pop()) {
    let batch: Promise<void>[] = [];
    try {
      for await (const entry of await opendir(next)) {
        signal?.throwIfAborted();
        const path = join(next, entry.name);
        if (entry.isDirectory()) {
          directories.push(path);
          continue;
        }
        batch.push(count(path));
        if (batch.length < statsAtOnce) continue;
        await Promise.all(batch);
        batch = [];
      }
    } catch (error) {
      if (!hasCode(error, 'ENOENT', 'ENOTDIR', 'EACCES')) throw error;
    } finally {
      await Promise.all(batch);
    }
  }
  return total;

  async function count(path: string): Promise<void> {
    try {
      const { dev, ino, nlink, size } = await lstat(path, { bigint: true });
      if (nlink > 1n) {
        const id = `${dev}:${ino}`;
        if (seen.has(id)) return;
        seen.add(id);
      }
      total += size;
    } catch (error) {
      if (!hasCode(error, 'ENOENT', 'ENOTDIR', 'EACCES')) throw error;
    }
  }
}
