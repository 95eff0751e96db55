import type { AppArmor } from '../apparmor/apparmor.js';
import type { Logger } from '@flotilla/log';
import type { KeyedLocks } from '@flotilla/store';
import { type Timestamp, timestampFromNs } from '@flotilla/proto';
import type { IdMaps } from '../rootfs/id-maps.js';
import type { Rootfs } from '../rootfs/rootfs-threads.js';
import type { Runtime, RuntimeTask } from '../runtime/runtime.js';
import type { ContainerStore } from '../store/container-store.js';
import type { LayersGate } from './layers-gate.js';
import type { Peers } from './peers.js';
import type { ContainerSettings } from './settings.js';
import type { RootfsUses } from './rootfs-uses.js';
import type { BuildSpec } from './spec-input.js';
import type { StartBarrier } from './start-barrier.js';
import type { Watchpoints } from './watchpoints.js';

/** What every part of the lifecycle works with. */
export interface ContainerContext {
  readonly store: ContainerStore;
  /** By container id: held over each change of state. */
  readonly locks: KeyedLocks;
  readonly runtime: Runtime;
  readonly rootfs: Rootfs;
  readonly idMaps: IdMaps;
  readonly peers: Peers;
  readonly appArmor: AppArmor;
  readonly buildSpec: BuildSpec;
  readonly settings: ContainerSettings;
  readonly log: Logger;
  /** Tasks that this process watches. */
  readonly tasks: Map<string, RuntimeTask>;
  readonly watchpoints: Watchpoints;
  /** Copies in and out: waited for, under the container's lock, before its root file system is mounted, unmounted or removed. */
  readonly rootfsUses: RootfsUses;
  /** Passed by what mounts layers. */
  readonly layersGate: LayersGate;
  /** Passed by what makes layers and volume references. */
  readonly holderBarrier: StartBarrier;
  /** Passed by what makes sandboxes. */
  readonly sandboxBarrier: StartBarrier;
  /** Nanoseconds since the epoch. */
  readonly nowNs: () => bigint;
}

export function timestampNow(context: ContainerContext): Timestamp {
  return timestampFromNs(context.nowNs());
}
