import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** A directory in memory (where /dev/shm exists) that goes when it is disposed. */
export interface TempDir extends AsyncDisposable {
  readonly path: string;
}

/** Make an empty directory `flotilla-<name>-<random>`. Whoever mounts in it unmounts before it is disposed. */
export async function makeTempDir(name = 'test'): Promise<TempDir> {
  const parent = existsSync('/dev/shm') ? '/dev/shm' : tmpdir();
  const path = await mkdtemp(join(parent, `flotilla-${name}-`));
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true, maxRetries: 3 }) };
}
