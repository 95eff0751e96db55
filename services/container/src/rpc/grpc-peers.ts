import { internal } from '@flotilla/errors';
import { image, network, volume } from '@flotilla/proto';
import type { TypedClient } from '@flotilla/rpc';
import type { Peers } from '../containers/peers.js';

export interface PeerClients {
  image: TypedClient<typeof image.ImageServiceService>;
  network: TypedClient<typeof network.NetworkServiceService>;
  volume: TypedClient<typeof volume.VolumeServiceService>;
}

// A call waits up to 10 s for a service that is being restarted (the clients' default); the rest is for the work itself.
const quick = { deadlineMs: 20_000 };
/** Layers of a large image are unpacked or removed, a volume driver is slow. */
const long = { deadlineMs: 120_000 };
/** All that a container has written is read, packed and compressed. */
const commitMs = 3_600_000;
/** New work waits meanwhile, see `StartBarrier`. */
const reconciling = { deadlineMs: 5000, retryUnavailableMs: 2000 };

/** The other services over gRPC. */
export function grpcPeers(clients: PeerClients): Peers {
  return {
    images: {
      prepareLayer: (request) => clients.image.prepareContainerLayer(request, long),
      releaseLayer: async (containerId) => {
        await clients.image.releaseContainerLayer({ containerId }, long);
      },
      commit: (request, requestId, signal) =>
        clients.image.commitContainer(request, { deadlineMs: commitMs, requestId, signal }),
      layerUsage: (containerId) => clients.image.getContainerLayerUsage({ containerId }, long),
      reconcile: async (liveContainerIds, revision) =>
        (await clients.image.reconcileHolders({ liveContainerIds, revision }, reconciling)).released,
    },
    volumes: {
      acquire: async (request) => {
        const { volume: acquired } = await clients.volume.acquireVolume(request, long);
        if (acquired === undefined) throw internal('the volume service acquired no volume');
        const { name, driver, mountpoint } = acquired;
        return { name, driver, mountpoint };
      },
      releaseAll: async (containerId, removeAnonymous) => {
        await clients.volume.releaseVolumes({ containerId, removeAnonymous }, long);
      },
      mount: (containerId, name, destination, readOnly) =>
        clients.volume.mountVolume({ containerId, name, destination, readOnly, propagation: '' }, long),
      unmountAll: async (containerId) => {
        await clients.volume.unmountVolumes({ containerId }, long);
      },
      reconcile: async (liveContainerIds, revision) =>
        (await clients.volume.reconcileHolders({ liveContainerIds, revision }, reconciling)).released,
    },
    networks: {
      check: (endpoints, ports) => clients.network.checkSandbox({ endpoints, ports }, quick),
      prepare: (request) => clients.network.prepareSandbox(request, quick),
      release: async (containerId) => {
        await clients.network.releaseSandbox({ containerId }, quick);
      },
      rename: async (containerId, containerName) =>
        (await clients.network.renameSandbox({ containerId, containerName }, quick)).endpoints,
      connect: (containerId, endpoint) => clients.network.connectSandbox({ containerId, endpoint }, quick),
      disconnect: async (containerId, name, force) => {
        await clients.network.disconnectSandbox({ containerId, network: name, force }, quick);
      },
      reconcile: async (liveContainerIds, revision) =>
        (await clients.network.reconcileHolders({ liveContainerIds, revision }, reconciling)).released,
    },
  };
}
