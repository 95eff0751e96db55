import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { internal, messageOf } from '@flotilla/errors';
import { tryOverlay } from '@flotilla/sys';

/** How the root file systems of containers are made: an overlay on the layers, or a copy of them. */
export type StorageDriver = 'overlay2' | 'vfs';

/**
 * The driver for new containers: the configured one, or else overlay2 where the file system of `dataDir` takes overlays and vfs where not,
 * with a warning.
 *
 * @throws EngineError `internal` when overlay2 is demanded and cannot be
 */
export async function chooseStorageDriver(
  configured: StorageDriver | undefined,
  dataDir: string,
  attempt: typeof tryOverlay = tryOverlay,
): Promise<{ driver: StorageDriver; warning: string | undefined }> {
  if (configured === 'vfs') return { driver: 'vfs', warning: undefined };
  const directory = join(dataDir, 'overlay-probe');
  const parts = ['lower', 'upper', 'work'].map((name) => join(directory, name)) as [string, string, string];
  try {
    await rm(directory, { recursive: true, force: true });
    for (const part of parts) await mkdir(part, { recursive: true, mode: 0o700 });
    attempt(...parts);
    return { driver: 'overlay2', warning: undefined };
  } catch (error) {
    const reason = messageOf(error);
    if (configured !== undefined) throw internal(`driver not supported: overlay2: ${reason}`, { cause: error });
    return {
      driver: 'vfs',
      warning: `WARNING: No overlay can be mounted on the data root: every container copies its whole image (storage driver vfs): ${reason}`,
    };
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}
