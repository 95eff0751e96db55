import { container } from '@flotilla/proto';
import { type Implementation, isVisible, matchesLabels, unary } from '@flotilla/rpc';
import type { Containers } from '../containers/containers.js';
import { type ContainerRecord, stateOf } from '../store/container-record.js';

type Handlers = Implementation<typeof container.ContainerServiceService>;

/** Records and their life. */
export const lifecycleRpc = (containers: Containers): Handlers => ({
  createContainer: unary((request, { requestId }) => containers.create(request, requestId), {
    idempotent: container.CreateContainerResponse,
  }),

  getContainer: unary(async ({ name, size }) => {
    const record = containers.context.store.resolve(name);
    const usage = size ? await containers.context.peers.images.layerUsage(record.container.id) : undefined;
    return {
      container: record.container,
      sizeRwBytes: usage?.sizeRwBytes ?? 0n,
      sizeRootFsBytes: usage?.sizeRootFsBytes ?? 0n,
    };
  }),

  listContainers: unary((_, { identity }) => {
    const { store } = containers.context;
    const isShown = (record: ContainerRecord): boolean =>
      stateOf(record) !== 'creating' && isVisible(record.container.config.labels, identity);
    const records = store.all().filter(isShown);
    records.sort((a, b) => compareTimes(b.container.createdAt, a.container.createdAt));
    return Promise.resolve({ containers: records.map((record) => record.container), revision: store.revision });
  }),

  startContainer: unary(
    ({ name, checkpoint, checkpointDir: directory }, { requestId }) =>
      containers.start(name, requestId, { checkpoint, directory }),
    { idempotent: container.StartContainerResponse },
  ),

  stopContainer: unary(
    ({ name, signal, timeoutSeconds }, { requestId }) => containers.stop(name, { signal, timeoutSeconds, requestId }),
    { idempotent: container.StopContainerResponse },
  ),

  stopAllContainers: unary(async ({ timeoutSeconds }) => ({ stopped: await containers.stopAll(timeoutSeconds) })),

  restartContainer: unary(
    async ({ name, signal, timeoutSeconds }, { requestId }) => ({
      revision: await containers.restart(name, { signal, timeoutSeconds, requestId }),
    }),
    { idempotent: container.RestartContainerResponse },
  ),

  killContainer: unary(
    async ({ name, signal }, { requestId }) => ({ revision: await containers.kill(name, signal, requestId) }),
    { idempotent: container.KillContainerResponse },
  ),

  pauseContainer: unary(async ({ name }, { requestId }) => ({ revision: await containers.pause(name, requestId) }), {
    idempotent: container.PauseContainerResponse,
  }),

  unpauseContainer: unary(
    async ({ name }, { requestId }) => ({ revision: await containers.unpause(name, requestId) }),
    {
      idempotent: container.UnpauseContainerResponse,
    },
  ),

  removeContainer: unary(
    async ({ name, force, volumes, link }, { requestId }) => ({
      revision: await containers.remove(name, { force, volumes, link, requestId }),
    }),
    { idempotent: container.RemoveContainerResponse },
  ),

  renameContainer: unary(
    async ({ name, newName }, { requestId }) => ({ revision: await containers.rename(name, newName, requestId) }),
    { idempotent: container.RenameContainerResponse },
  ),

  updateContainer: unary(
    ({ name, resources, restartPolicy }, { requestId }) =>
      containers.update(name, { resources, restartPolicy, requestId }),
    { idempotent: container.UpdateContainerResponse },
  ),

  resizeContainer: unary(async ({ name, height, width }) => {
    await containers.resize(name, height, width);
    return {};
  }),

  pruneContainers: unary(({ until, labels, excludedLabels }, { identity }) =>
    containers.prune({
      until,
      matchesLabels: (own) => isVisible(own, identity) && matchesLabels(own, labels, excludedLabels),
    }),
  ),

  connectNetwork: unary(async ({ container: name, endpoint }) => ({
    revision: endpoint === undefined ? 0n : await containers.connect(name, endpoint),
  })),

  disconnectNetwork: unary(async ({ container: name, network, force }) => ({
    revision: await containers.disconnect(name, network, force),
  })),
});

interface Time {
  seconds: bigint;
  nanos: number;
}

function compareTimes(a: Time | undefined, b: Time | undefined): number {
  const seconds = (a?.seconds ?? 0n) - (b?.seconds ?? 0n);
  if (seconds !== 0n) return seconds < 0n ? -1 : 1;
  return (a?.nanos ?? 0) - (b?.nanos ?? 0);
}
