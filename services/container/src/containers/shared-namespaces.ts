import { basename, dirname } from 'node:path';
import { conflict, EngineError, internal, invalidArgument, isEngineError } from '@flotilla/errors';
import type { IdPair } from '@flotilla/sys';
import type { SpecInput } from '../spec/index.js';
import { type ContainerRecord, stateOf } from '../store/container-record.js';
import type { ContainerContext } from './context.js';
import { rootfsDir } from './settings.js';
import type { NamespaceChoice } from './spec-input.js';
import { isLive } from './state.js';

const joinPrefix = 'container:';

/** The pid namespace that a container asks for. @throws EngineError `internal`, as dockerd has it, when it cannot be joined. */
export function pidNamespace(context: ContainerContext, { container }: ContainerRecord): NamespaceChoice {
  const { pidMode } = container.hostConfig;
  if (!pidMode.startsWith(joinPrefix)) return { kind: pidMode === 'host' ? 'host' : 'private' };
  const other = joining('PID', () => runningOther(context, pidMode));
  return { kind: 'path', path: `/proc/${other.container.state.pid}/ns/pid` };
}

/** The ipc namespace of a run, and what it has at /dev/shm. */
export interface Ipc {
  namespace: NamespaceChoice;
  shm: SpecInput['shm'];
  /** Where the memory lies that others share who join; absent: nobody may join. */
  shmPath?: string;
}

/**
 * Join or make what `--ipc` asks for. Shared memory that may be shared is mounted beside the root file system, and goes with the run; those who join
 * have a mount of their own of it, so that neither's end takes it from the other.
 *
 * @param owner the container's root when that is not the host's
 * @throws EngineError `invalidArgument` or `conflict` in dockerd's words when the other container cannot be joined
 */
export async function prepareIpc(
  context: ContainerContext,
  { container, internals }: ContainerRecord,
  owner: IdPair | undefined,
): Promise<Ipc> {
  const { ipcMode, shmSizeBytes } = container.hostConfig;
  const rootfs = rootfsDir(context.settings, container.id);
  // What the user mounts there comes in place of it.
  const isReplaced = internals.mounts.some(({ destination }) => destination === '/dev/shm');
  if (ipcMode.startsWith(joinPrefix)) {
    const other = joining('IPC', () => shareableOther(context, ipcMode));
    const namespace: NamespaceChoice = { kind: 'path', path: `/proc/${other.pid}/ns/ipc` };
    const { shmPath } = other;
    if (isReplaced) return { namespace, shm: { kind: 'none' }, shmPath };
    if (shmPath === hostShm) return { namespace, shm: { kind: 'bind', source: hostShm }, shmPath };
    const own = await context.rootfs.pin(rootfs, dirname(shmPath), basename(shmPath), shmName);
    return { namespace, shm: { kind: 'bind', source: own }, shmPath: own };
  }
  switch (ipcMode) {
    case 'host':
      return { namespace: { kind: 'host' }, shm: { kind: 'bind', source: hostShm }, shmPath: hostShm };
    case 'none':
      return { namespace: { kind: 'private' }, shm: { kind: 'none' } };
    case 'shareable': {
      if (isReplaced) return { namespace: { kind: 'private' }, shm: { kind: 'none' } };
      const shmPath = await context.rootfs.sharedMemory(rootfs, shmSizeBytes, shmName, owner);
      return { namespace: { kind: 'private' }, shm: { kind: 'bind', source: shmPath }, shmPath };
    }
    default:
      return { namespace: { kind: 'private' }, shm: { kind: 'tmpfs', sizeBytes: shmSizeBytes } };
  }
}

const hostShm = '/dev/shm';
/** No name of another mount: those are digests. */
const shmName = 'shm';

function shareableOther(context: ContainerContext, mode: string): { pid: number; shmPath: string } {
  const other = runningOther(context, mode);
  const shmPath = other.internals.task?.shmPath;
  if (shmPath === undefined) {
    throw invalidArgument(
      `container ${other.container.id}: non-shareable IPC (hint: use IpcMode:shareable for the donor container)`,
    );
  }
  return { pid: other.container.state.pid, shmPath };
}

function runningOther({ store }: ContainerContext, mode: string): ContainerRecord {
  const other = asInvalid(() => store.resolve(mode.slice(joinPrefix.length)));
  const { id } = other.container;
  if (stateOf(other) === 'restarting') {
    throw conflict(`Container ${id} is restarting, wait until the container is running`);
  }
  if (!isLive(stateOf(other))) throw conflict(`container ${id} is not running`);
  return other;
}

function asInvalid<T>(find: () => T): T {
  try {
    return find();
  } catch (error) {
    throw isEngineError(error, 'notFound') ? invalidArgument(error.message, { cause: error }) : error;
  }
}

function joining<T>(what: 'PID' | 'IPC', find: () => T): T {
  try {
    return find();
  } catch (error) {
    if (!isEngineError(error)) throw error;
    const message = `failed to join ${what} namespace: ${error.message}`;
    throw what === 'PID' ? internal(message, { cause: error }) : new EngineError(error.kind, message, { cause: error });
  }
}
