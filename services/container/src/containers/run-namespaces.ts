import { statSync } from 'node:fs';
import { isDeepStrictEqual } from 'node:util';
import { conflict, internal, messageOf } from '@flotilla/errors';
import { hasCode, type IdMappings, NamespaceHolder } from '@flotilla/sys';
import { type ContainerRecord, stateOf } from '../store/container-record.js';
import type { ContainerContext } from './context.js';
import { rootfsDir } from './settings.js';
import { isLive } from './state.js';

/** Where a container that starts finds its user namespace. */
export interface RunNamespaces extends AsyncDisposable {
  /** For config.json; good until disposal, that is until the runtime has joined it. */
  readonly userPath: string;
  /** A new network namespace that belongs to it; absent when another container's is joined. */
  readonly networkPath: string | undefined;
}

/** A running container, and where its user namespace is found. */
interface Donor {
  id: string;
  path: string;
}

/**
 * The user namespace of a remapped container that starts, and its network namespace: root inside rules only what belongs to its user namespace, so
 * this has to be made first. Who shares a namespace with another container shares its user namespace too, as with dockerd.
 *
 * @throws EngineError `conflict` when what is shared belongs to different user namespaces, or its container has ended
 */
export async function makeRunNamespaces(
  context: ContainerContext,
  record: ContainerRecord,
  mappings: IdMappings,
): Promise<RunNamespaces> {
  const donor = sharedUserNamespace(context, record, mappings);
  const ownsNetwork = record.internals.network.kind !== 'container';
  if (donor !== undefined && !ownsNetwork) {
    return { userPath: donor.path, networkPath: undefined, [Symbol.asyncDispose]: () => Promise.resolve() };
  }
  let holder: NamespaceHolder;
  try {
    holder =
      donor === undefined
        ? await NamespaceHolder.inNewUserNamespace(mappings, { network: true })
        : await NamespaceHolder.inNewNetwork(donor.path);
  } catch (cause) {
    if (donor !== undefined) inodeOf(donor);
    throw internal(`failed to create the user namespace: ${messageOf(cause)}`, { cause });
  }
  try {
    const rootfs = rootfsDir(context.settings, record.container.id);
    const networkPath = await context.rootfs.pinNamespace(rootfs, holder.path('net'));
    return {
      userPath: donor?.path ?? holder.path('user'),
      networkPath,
      [Symbol.asyncDispose]: () => holder[Symbol.asyncDispose](),
    };
  } catch (error) {
    await holder[Symbol.asyncDispose]();
    throw error;
  }
}

function sharedUserNamespace(
  { store }: ContainerContext,
  { container: { hostConfig }, internals }: ContainerRecord,
  mappings: IdMappings,
): Donor | undefined {
  const network = internals.network.kind === 'container' ? `container:${internals.network.target}` : '';
  const donors = [network, hostConfig.pidMode, hostConfig.ipcMode].flatMap((mode) => {
    if (!mode.startsWith('container:')) return [];
    const donor = store.resolve(mode.slice('container:'.length));
    const { id, state } = donor.container;
    // That it does not run is told where its namespace is looked for.
    if (!isLive(stateOf(donor))) return [];
    if (!isDeepStrictEqual(donor.internals.userNamespace ?? null, mappings)) {
      throw conflict(`cannot share a namespace of container ${id}: it runs in another user namespace`);
    }
    return [{ id, path: `/proc/${state.pid}/ns/user` }];
  });
  if (donors.length > 1 && new Set(donors.map(inodeOf)).size > 1) {
    throw conflict('cannot share namespaces of containers that run in different user namespaces');
  }
  return donors[0];
}

/** @throws EngineError `conflict` when the container has ended and that is not recorded yet */
function inodeOf({ id, path }: Donor): number {
  try {
    return statSync(path).ino;
  } catch (error) {
    if (!hasCode(error, 'ENOENT', 'ESRCH')) throw error;
    throw conflict(`container ${id} is not running`, { cause: error });
  }
}
