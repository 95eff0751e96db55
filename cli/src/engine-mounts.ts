import { execFile } from 'node:child_process';
import { mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { Logger } from '@flotilla/log';

const run = promisify(execFile);

/**
 * The only directories whose mounts services see of each other, also from mount namespaces of their own: each is bound
 * on itself and made rshared.
 */
export const sharedDirectories = (dataRoot: string, execRoot: string): string[] => [
  join(dataRoot, 'volumes'),
  join(dataRoot, 'plugins'),
  join(execRoot, 'netns'),
  join(execRoot, 'containers'),
];

/** Make the shared directories, closed to others until their service opens them, and their mounts; what is there from before (containers run on it) stays. */
export async function mountSharedDirectories(directories: readonly string[]): Promise<void> {
  const mounted = new Set(mountPoints());
  await Promise.all(
    directories.map(async (dir) => {
      mkdirSync(dir, { recursive: true, mode: 0o700 });
      await run('mount', mounted.has(dir) ? ['--make-rshared', dir] : ['--bind', '--make-rshared', dir, dir]);
    }),
  );
}

/** Take away those mounts that hold no other mount: after a stop with containers running they stay for the next start. */
export async function unmountSharedDirectories(directories: readonly string[], log: Logger): Promise<void> {
  const points = mountPoints();
  for (const dir of directories) {
    if (!points.includes(dir) || points.some((point) => point.startsWith(`${dir}/`))) continue;
    try {
      await run('umount', [dir]);
    } catch (err) {
      log.debug({ err, dir }, 'shared directory stays mounted');
    }
  }
}

/** Mount points of this process, deepest last. */
function mountPoints(): string[] {
  return readFileSync('/proc/self/mountinfo', 'utf8')
    .trimEnd()
    .split('\n')
    .map((line) => unescapePath(line.split(' ')[4] ?? ''));
}

// Space, tab, newline and backslash stand as \ooo.
const unescapePath = (path: string) =>
  path.replace(/\\([0-7]{3})/g, (_match, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)));
