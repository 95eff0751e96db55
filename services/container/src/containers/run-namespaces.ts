import { statSync } from 'node:fs';
import { isDeepStrictEqual } from 'node:util';
import { conflict, internal, messageOf } from '@flotilla/errors';
import { type IdMappings, NamespaceHolder } from '@flotilla/sys';
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

/**
 * The user namespace of a remapped container that starts, and its network namespace: root inside rules only what belongs to its user namespace, so
 * this has to be made first. Who shares a namespace with another container shares its user namespace too, as with dockerd.
 *
 * @throws EngineError `conflict` when what is shared belongs to different user namespaces
 */
export async function makeRunNamespaces(
  context: ContainerContext,
  record: ContainerRecord,
  mappings: IdMappings,
): Promise<RunNamespaces> {
  const donor = sharedUserNamespace(context, record, mappings);
  const ownsNetwork = record.internals.network.kind !== 'container';
  if (donor !== undefined && !ownsNetwork) {
    return { userPath: donor, networkPath: undefined, [Symbol.asyncDispose]: () => Promise.resolve() };
  }
  let holder: NamespaceHolder;
  try {
    holder =
      donor === undefined
        ? await NamespaceHolder.inNewUserNamespace(mappings, { network: true })
        : await NamespaceHolder.inNewNetwork(donor);
  } catch (cause) {
    throw internal(`failed to create the user namespace: ${messageOf(cause)}`, { cause });
  }
  try {
    const rootfs = rootfsDir(context.settings, record.container.id);
    const networkPath = await context.rootfs.pinNamespace(rootfs, holder.path('net'));
    return {
      userPath: donor ?? holder.path('user'),
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
): string | undefined {
  const network = internals.network.kind === 'container' ? `container:${internals.network.target}` : '';
  const paths = [network, hostConfig.pidMode, hostConfig.ipcMode].flatMap((mode) => {
    if (!mode.startsWith('container:')) return [];
    const donor = store.resolve(mode.slice('container:'.length));
    const { id, state } = donor.container;
    // That it does not run is told where its namespace is looked for.
    if (!isLive(stateOf(donor))) return [];
    if (!isDeepStrictEqual(donor.internals.userNamespace ?? null, mappings)) {
      throw conflict(`cannot share a namespace of container ${id}: it runs in another user namespace`);
    }
    return [`/proc/${state.pid}/ns/user`];
  });
  if (new Set(paths.map((path) => statSync(path).ino)).size > 1) {
    throw conflict('cannot share namespaces of containers that run in different user namespaces');
  }
  return paths[0];
}
