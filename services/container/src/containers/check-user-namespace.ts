import { join } from 'node:path';
import { internal, messageOf } from '@flotilla/errors';
import type { IdMaps } from '../rootfs/id-maps.js';
import type { Rootfs } from '../rootfs/rootfs-threads.js';
import type { ContainerSettings } from './settings.js';

interface Parts {
  settings: Pick<ContainerSettings, 'dataDir' | 'userNamespace'>;
  rootfs: Pick<Rootfs, 'tryIdMap'>;
  idMaps: IdMaps;
  /** False: containers get copies of their images. */
  needsOverlay: boolean;
}

/**
 * See at the start of the service whether the machine can do what `userns-remap` asks for, rather than at the first container.
 *
 * @throws EngineError `internal` with the reason
 */
export async function checkUserNamespace({ settings, rootfs, idMaps, needsOverlay }: Parts): Promise<void> {
  if (settings.userNamespace === undefined) return;
  const { dataDir, userNamespace } = settings;
  const failed = (cause: unknown, what: string): Error =>
    internal(`userns-remap cannot work here: ${what}${messageOf(cause)}`, { cause });
  const idMap = await idMaps.of(userNamespace).catch((error: unknown) => {
    throw failed(error, '');
  });
  await rootfs.tryIdMap(join(dataDir, 'id-map-probe'), idMap, needsOverlay).catch((error: unknown) => {
    throw failed(
      error,
      `the kernel (Linux 5.19 is needed) or the file system of ${dataDir} cannot show files with mapped ids: `,
    );
  });
}
