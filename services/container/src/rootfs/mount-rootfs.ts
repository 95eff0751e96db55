import { internal, messageOf } from '@flotilla/errors';
import { bindMount, mountOverlay } from '@flotilla/sys';

/** What a container's root file system is made of, as the image service said. */
export interface RootfsLayers {
  /** Topmost first; none: `upper` is the whole root file system (storage driver vfs). */
  lower: string[];
  upper: string;
  work: string;
}

/** Mount a root file system on `target`, an existing directory. Never twice at a time: overlays must not share `upper`. */
export function mountRootfs({ lower, upper, work }: RootfsLayers, target: string): void {
  if (lower.length === 0) {
    bindMount(upper, target);
    return;
  }
  try {
    mountOverlay({ lower, upper, work, target });
  } catch (error) {
    throw internal(`the container was made with storage driver overlay2: ${messageOf(error)}`, { cause: error });
  }
}
