import type { IdMap } from '../rootfs/id-map.js';
import { pinName } from '../rootfs/pins.js';
import type { ContainerRecord } from '../store/container-record.js';
import { stateOf } from '../store/container-record.js';
import type { ContainerContext } from './context.js';
import { rootfsDir } from './settings.js';
import type { ResolvedMount } from './spec-input.js';

export interface MountedVolume extends ResolvedMount {
  /** Present for a volume into which image content may be copied: the name of the directory in it for that, see `copyUp`. */
  staging?: string;
}

interface FillOptions {
  /** Where the container's root file system is mounted. Absent: nowhere, it does not run. */
  rootfs?: string | undefined;
  idMap: IdMap | undefined;
}

/**
 * Copy what the image has at their destinations into the volumes that are empty, once: a container that has been started before finds
 * them as they are. All copies go through one thread, so there are never two into the same volume.
 */
export async function fillVolumes(
  context: ContainerContext,
  { container }: Pick<ContainerRecord, 'container'>,
  mounts: readonly MountedVolume[],
  { rootfs, idMap }: FillOptions,
): Promise<void> {
  if (container.state.startedAt !== undefined) return;
  const shown = new Map<string, string | undefined>([[container.id, rootfs]]);
  for (const { planned, source, staging } of mounts) {
    if (planned.type !== 'volume' || !planned.copy || staging === undefined) continue;
    // Of `--volumes-from`: it is filled as if the container that it comes from had started first.
    const from = planned.inheritedFrom ?? container.id;
    const content = shown.get(from) ?? (await showImage(context, container.id, from, idMap));
    shown.set(from, content);
    if (content === undefined) continue;
    const { destination } = planned;
    await context.rootfs.copyUp({
      ...{ rootfs: content, destination, volume: source, staging },
      ...(idMap === undefined ? {} : { idMap }),
    });
  }
}

/** Show the image of a container beside the root file system of container `id`. @returns where; nothing when it is gone, or being made */
async function showImage(
  context: ContainerContext,
  id: string,
  from: string,
  idMap: IdMap | undefined,
): Promise<string | undefined> {
  const origin = context.store.get(from);
  if (origin === undefined || stateOf(origin) === 'creating') return undefined;
  const { lowerDirs, upperDir } = origin.container;
  const rootfs = rootfsDir(context.settings, id);
  if (lowerDirs.length > 0) return context.rootfs.pinImage(rootfs, lowerDirs, '', pinName(from), idMap);
  // No layers, as with vfs: it has a copy of the image of its own.
  return context.rootfs.pin(rootfs, upperDir, '.', pinName(from), idMap === undefined ? {} : { idMap });
}
