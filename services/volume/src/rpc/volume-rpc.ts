import { invalidArgument } from '@flotilla/errors';
import { volume } from '@flotilla/proto';
import { isVisible, matchesLabels, serverStream, unary, watch } from '@flotilla/rpc';
import type { CallContext, Implementation } from '@flotilla/rpc';
import type { VolumeContent } from '../drivers/volume-driver.js';
import type { VolumeStore } from '../store/volume-store.js';
import type { VolumeRecord } from '../volumes/volume-record.js';
import type { Mutation, PruneResult, RemovedResult, VolumeResult, Volumes } from '../volumes/volumes.js';
import { toVolume } from './volume-messages.js';

/** `flotilla.volume.v1.VolumeService`: decode, call the domain, encode. */
export function volumeRpc(volumes: Volumes, store: VolumeStore): Implementation<typeof volume.VolumeServiceService> {
  const encode = (record: VolumeRecord) => toVolume(volumes, record);
  const source = {
    snapshot: () => ({ revision: store.revision, records: store.list() }),
    subscribe: (listener: Parameters<typeof store.onChange>[0]) => store.onChange(listener),
  };

  const created = ({ volume: record, revision }: VolumeResult): volume.CreateVolumeResponse => ({
    volume: encode(record),
    revision,
  });
  const acquired = ({ volume: record, revision, created: isNew }: VolumeResult): volume.AcquireVolumeResponse => ({
    volume: encode(record),
    created: isNew,
    revision,
  });

  return {
    createVolume: unary(
      async ({ name, driver, options, labels }, context) =>
        created(
          await volumes.create(
            { name, driver, options, labels },
            mutation(context, volume.CreateVolumeResponse, created),
          ),
        ),
      { idempotent: volume.CreateVolumeResponse },
    ),

    getVolume: unary(({ name }) => Promise.resolve({ volume: encode(volumes.get(name)) })),

    listVolumes: unary((_request, { identity }) =>
      Promise.resolve({
        volumes: store
          .list()
          .filter(({ labels }) => isVisible(labels, identity))
          .map(encode),
        warnings: [],
        revision: store.revision,
      }),
    ),

    removeVolume: unary(
      async ({ name, force }, context) =>
        removedOne(await volumes.remove(name, force, mutation(context, volume.RemoveVolumeResponse, removedOne))),
      { idempotent: volume.RemoveVolumeResponse },
    ),

    pruneVolumes: unary(
      async ({ all, labels, excludedLabels }, context) => {
        const accepts = (record: VolumeRecord) =>
          isVisible(record.labels, context.identity) && matchesLabels(record.labels, labels, excludedLabels);
        const pruning = mutation(context, volume.PruneVolumesResponse, pruned);
        return pruned(await volumes.prune({ all, accepts }, pruning));
      },
      { idempotent: volume.PruneVolumesResponse },
    ),

    getVolumeUsage: unary(async (_request, { identity, signal }) => {
      const usage: volume.VolumeUsage[] = [];
      const measured = await volumes.usage(({ labels }) => isVisible(labels, identity), signal);
      for (const { volume: record, sizeBytes } of measured) {
        usage.push({ name: record.name, sizeBytes, referenceCount: BigInt(record.holders.length) });
      }
      return { volumes: usage };
    }),

    watchVolumes: serverStream((_request, { identity, signal }) =>
      watch(source, (record) => (isVisible(record.labels, identity) ? encode(record) : undefined), signal),
    ),

    acquireVolume: unary(
      async ({ holder, name, driver, options, labels, destination, isAnonymous }, context) => {
        const { containerId = '', containerName = '' } = holder ?? {};
        checkContainerId(containerId);
        const spec = { containerId, containerName, name, driver, options, labels, destination, isAnonymous };
        return acquired(await volumes.acquire(spec, mutation(context, volume.AcquireVolumeResponse, acquired)));
      },
      { idempotent: volume.AcquireVolumeResponse },
    ),

    releaseVolumes: unary(
      async ({ containerId, removeAnonymous }, context) => {
        checkContainerId(containerId);
        const releasing = mutation(context, volume.ReleaseVolumesResponse, released);
        return released(await volumes.release(containerId, removeAnonymous, releasing));
      },
      { idempotent: volume.ReleaseVolumesResponse },
    ),

    mountVolume: unary(async ({ containerId, name, destination, readOnly, propagation }, { requestId, signal }) => {
      checkContainerId(containerId);
      const mount = { containerId, name, destination, readOnly, propagation };
      const { path, isFresh, content, copyStaging } = await volumes.mount(mount, requestId, signal);
      return { path, fresh: isFresh, content: contents[content], copyStaging };
    }),

    unmountVolumes: unary(async ({ containerId }, { requestId, signal }) => {
      checkContainerId(containerId);
      await volumes.unmount(containerId, requestId, signal);
      return {};
    }),

    reconcileHolders: unary(async ({ liveContainerIds }) => ({
      released: await volumes.reconcile(new Set(liveContainerIds)),
    })),
  };
}

const contents: Readonly<Record<VolumeContent, volume.VolumeContent>> = {
  own: volume.VolumeContent.UNSPECIFIED,
  fileSystem: volume.VolumeContent.FILE_SYSTEM,
  bind: volume.VolumeContent.BIND,
};

const removedOne = ({ revision }: RemovedResult): volume.RemoveVolumeResponse => ({ revision });
const released = ({ removed, revision }: RemovedResult): volume.ReleaseVolumesResponse => ({ removed, revision });
const pruned = ({ removed, reclaimedBytes, revision }: PruneResult): volume.PruneVolumesResponse => ({
  removed,
  reclaimedBytes,
  revision,
});

function mutation<R, M>(
  { requestId, signal }: CallContext,
  message: { encode(value: M): { finish(): Uint8Array } },
  toMessage: (result: R) => M,
): Mutation<R> {
  return { requestId, signal, encode: (result) => message.encode(toMessage(result)).finish() };
}

function checkContainerId(id: string): void {
  if (!/^[0-9a-f]{64}$/.test(id)) throw invalidArgument('container_id: expected 64 hex digits');
}
