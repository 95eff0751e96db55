import { container } from '@flotilla/proto';
import type { IdMappings } from '@flotilla/sys';
import type { Link } from '../containers/link-plan.js';
import type { PlannedMount } from '../containers/mount-plan.js';
import type { NetworkPlan } from '../containers/network-plan.js';
import { type ContainerState, containerStates } from '../containers/state.js';

/** What the service must remember of a container beyond what it shows. JSON. */
export interface ContainerInternals {
  /** The mounts, checked and with the names of anonymous volumes filled in. */
  mounts: PlannedMount[];
  network: NetworkPlan;
  /** Links of the default bridge. Absent in old records. */
  links?: Link[];
  /** Exits so far: what `wait` counts. */
  exitSequence: number;
  /** A task exists: where its shim listens, and the shared memory of those who join its ipc namespace (absent: nobody may). */
  task: { shimAddress: string; shmPath?: string } | null;
  /** It has been started at least once. */
  hasBeenStarted: boolean;
  /** A restart by policy is due. */
  backOff: { delayMs: number; dueAtMs: number } | null;
  /** Delay before the last restart by policy; 0 if the present run was begun by a user. */
  previousDelayMs: number;
  /** A user's signal ended the present run: the restart policy stands back. */
  exitIsFinal: boolean;
  /** A stop is under way: its request is answered when the task has ended. */
  stopRequestId: string | null;
  /** A restart is under way: after its end the container is started again, and the request is answered then. */
  restartRequestId: string | null;
  /** A removal is under way, or waits for the end of the task. */
  removal: { volumes: boolean; requestId: string } | null;
  /** A commit has frozen the container, or is about to: whoever finds this after a crash thaws it. Absent in old records. */
  commitFreeze?: string | null;
  /** Why the container cannot be used, see `Quarantine`. Absent in old records. */
  quarantine?: {
    reason: string;
    /** A part of this record, at least, was lost: nobody knows what the container holds. */
    isRecordLost?: boolean;
    /** Its state when what it misses is there again; absent: it can only be removed. */
    returnsTo?: 'created' | 'exited';
  } | null;
  /** The ids of its user namespace, whatever the engine's setting is now; null: it runs in the host's. Absent in old records. */
  userNamespace?: IdMappings | null;
}

/** What of the internals a life of the container changes, before there has been any. */
export const neverStarted = {
  exitSequence: 0,
  task: null,
  hasBeenStarted: false,
  backOff: null,
  previousDelayMs: 0,
  exitIsFinal: false,
  stopRequestId: null,
  restartRequestId: null,
  removal: null,
} satisfies Partial<ContainerInternals>;

/** One container as it is stored. Never changed in place. */
export interface ContainerRecord {
  readonly container: ShownContainer;
  readonly internals: ContainerInternals;
  /** Store revision of the last change. */
  readonly revision: bigint;
}

/** `Container` with the parts that every record has. */
export type ShownContainer = container.Container & {
  config: container.ContainerConfig;
  hostConfig: container.HostConfig;
  state: container.ContainerState;
  networkSettings: container.NetworkSettings;
};

/** A removed container, kept for a while for `wait` calls that are resumed. */
export interface Tombstone {
  exitCode: number;
  exitSequence: number;
  error: string;
  removedAtMs: number;
}

const statusOf: Readonly<Record<ContainerState, container.ContainerStatus>> = {
  creating: container.ContainerStatus.CREATING,
  created: container.ContainerStatus.CREATED,
  running: container.ContainerStatus.RUNNING,
  paused: container.ContainerStatus.PAUSED,
  restarting: container.ContainerStatus.RESTARTING,
  removing: container.ContainerStatus.REMOVING,
  exited: container.ContainerStatus.EXITED,
  dead: container.ContainerStatus.DEAD,
};

export function toStatus(state: ContainerState): container.ContainerStatus {
  return statusOf[state];
}

/** State of a record. A status that this version does not know counts as `dead`: shown, and only good for removal. */
export function stateOf(record: { container: ShownContainer }): ContainerState {
  const { status } = record.container.state;
  return containerStates.find((state) => statusOf[state] === status) ?? 'dead';
}

/** Fill in the parts that the wire form leaves optional. */
export function completeContainer(partial: container.Container): ShownContainer {
  return {
    ...partial,
    config: partial.config ?? container.ContainerConfig.fromPartial({}),
    hostConfig: partial.hostConfig ?? container.HostConfig.fromPartial({}),
    state: partial.state ?? container.ContainerState.fromPartial({}),
    networkSettings: partial.networkSettings ?? container.NetworkSettings.fromPartial({}),
  };
}
