import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { rm, stat } from 'node:fs/promises';
import { hasCode } from '@flotilla/sys';

/** What a container has written is mostly next to nothing. */
export async function removeSmallTree(directory: string): Promise<void> {
  await rm(directory, { recursive: true, force: true, maxRetries: 3 });
}

/** A layer may hold thousands of files: a child removes them, so that neither this thread nor libuv's are kept busy. */
export async function removeLargeTree(directory: string): Promise<void> {
  await once(spawn('rm', ['-rf', '--', directory], { stdio: 'ignore' }), 'close').catch(() => undefined);
  await removeSmallTree(directory); // what is left, also when there was no child
}

export async function isDirectory(path: string): Promise<boolean> {
  try {
    return (await stat(path)).isDirectory();
  } catch (error) {
    if (hasCode(error, 'ENOENT', 'ENOTDIR')) return false;
    throw error;
  }
}
