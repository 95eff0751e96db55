import { lstatSync, opendirSync } from 'node:fs';
import { join } from 'node:path';
import { hasCode } from '@flotilla/sys';

/**
 * Bytes of the files under `dir`, hard links counted once and directories not at all, as `docker system df` counts volumes
 * (moby/moby pkg/directory). What vanishes meanwhile is not counted. For a thread of its own.
 *
 * @param seen called for every entry
 */
export function directorySize(dir: string, seen: () => void = () => undefined): bigint {
  const linked = new Set<string>();
  let total = 0n;
  const directories = [dir];
  for (let next = directories.pop(); next !== undefined; next = directories.pop()) {
    const path = next;
    passOver(() => {
      const directory = opendirSync(path);
      try {
        for (let entry = directory.readSync(); entry !== null; entry = directory.readSync()) {
          seen();
          const inside = join(path, entry.name);
          if (entry.isDirectory()) directories.push(inside);
          else passOver(() => count(inside));
        }
      } finally {
        directory.closeSync();
      }
    });
  }
  return total;

  function count(path: string): void {
    const { dev, ino, nlink, size } = lstatSync(path, { bigint: true });
    if (nlink > 1n) {
      const id = `${dev}:${ino}`;
      if (linked.has(id)) return;
      linked.add(id);
    }
    total += size;
  }
}

function passOver(look: () => void): void {
  try {
    look();
  } catch (error) {
    if (!hasCode(error, 'ENOENT', 'ENOTDIR', 'EACCES')) throw error;
  }
}
