import { internal, messageOf } from '@flotilla/errors';
import { bindMount, mountOverlay } from '@flotilla/sys';
import type { IdMap } from './id-map.js';
import { mountMappedOverlay, showMapped } from './mapped-overlay.js';

/** What a container's root file system is made of, as the image service said. */
export interface RootfsLayers {
  /** Topmost first; none: `upper` is the whole root file system (storage driver vfs). */
  lower: string[];
  upper: string;
  work: string;
}

/**
 * Mount a root file system on `target`, an existing directory. Never twice at a time: overlays must not share `upper`.
 *
 * With `idMap` by a thread that has unshared `CLONE_FS`.
 */
export function mountRootfs({ lower, upper, work }: RootfsLayers, target: string, idMap?: IdMap): void {
  if (lower.length === 0) {
    if (idMap === undefined) bindMount(upper, target);
    else showMapped(upper, target, idMap);
    return;
  }
  try {
    if (idMap === undefined) mountOverlay({ lower, upper, work, target });
    else mountMappedOverlay({ lower, writable: { upper, work } }, target, idMap);
  } catch (error) {
    throw internal(`the container was made with storage driver overlay2: ${messageOf(error)}`, { cause: error });
  }
}
