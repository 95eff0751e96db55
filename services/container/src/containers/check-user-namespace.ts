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
  try {
    const idMap = await idMaps.of(settings.userNamespace);
    await rootfs.tryIdMap(join(settings.dataDir, 'id-map-probe'), idMap, needsOverlay);
  } catch (cause) {
    throw internal(`userns-remap cannot work here: ${messageOf(cause)}`, { cause });
  }
}
