import { network as proto, timestampToNs } from '@flotilla/proto';
import { invalidArgument } from '@flotilla/errors';
import { isVisible, matchesLabels, serverStream, serviceEntry, unary, watch } from '@flotilla/rpc';
import type { ServiceEntry } from '@flotilla/rpc';
import type { Networks } from '../networks/networks.js';
import type { SandboxFiles } from '../sandboxes/sandbox-files.js';
import type { ConnectedSandbox, Sandboxes } from '../sandboxes/sandboxes.js';
import type { NetworkStore } from '../store/network-store.js';
import { renderEndpoint, renderEndpoints, renderNetwork, renderPort } from './render.js';

export interface NetworkRpcDeps {
  store: NetworkStore;
  networks: Networks;
  sandboxes: Sandboxes;
  files: SandboxFiles;
}

/** `flotilla.network.v1.NetworkService`. */
export function networkRpc({ store, networks, sandboxes, files }: NetworkRpcDeps): ServiceEntry {
  return serviceEntry(proto.NetworkServiceService, {
    createNetwork: unary(
      async (request, { requestId }) => {
        const answer = (id: string, revision: bigint): proto.CreateNetworkResponse => ({ id, warning: '', revision });
        const { record, revision } = await networks.create(request, ({ id }) => (batch) => {
          batch.reply(requestId, proto.CreateNetworkResponse.encode(answer(id, batch.revision)).finish());
        });
        return answer(record.id, revision);
      },
      { idempotent: proto.CreateNetworkResponse },
    ),
    getNetwork: unary(({ name }) => Promise.resolve({ network: renderNetwork(networks.resolve(name), store) })),
    listNetworks: unary((_request, { identity }) =>
      Promise.resolve({
        networks: store
          .networks()
          .filter(({ labels }) => isVisible(labels, identity))
          .map((record) => renderNetwork(record, store)),
        revision: store.revision,
      }),
    ),
    removeNetwork: unary(
      async ({ name }, { requestId }) => ({
        revision: await networks.remove(name, (batch) => {
          batch.reply(requestId, proto.RemoveNetworkResponse.encode({ revision: batch.revision }).finish());
        }),
      }),
      { idempotent: proto.RemoveNetworkResponse },
    ),
    pruneNetworks: unary(async ({ until, labels, excludedLabels }, { identity }) =>
      networks.prune({
        ...(until === undefined ? {} : { untilNs: timestampToNs(until) }),
        matchesLabels: (own) => isVisible(own, identity) && matchesLabels(own, labels, excludedLabels),
      }),
    ),
    watchNetworks: serverStream((_request, { identity, signal }) => {
      const source = {
        snapshot: () => ({ revision: store.revision, records: store.networks() }),
        subscribe: (listener: Parameters<typeof store.onChange>[0]) => store.onChange(listener),
      };
      return watch(
        source,
        (record) => (isVisible(record.labels, identity) ? renderNetwork(record, store) : undefined),
        signal,
      );
    }),
    checkSandbox: unary((request) => {
      const records = sandboxes.check(request);
      return Promise.resolve({
        warnings: [],
        networkIds: records.map(({ id }) => id),
        networkNames: records.map(({ name }) => name),
      });
    }),
    prepareSandbox: unary(async (request) => {
      const { record, revision } = await sandboxes.prepare(request);
      return {
        sandboxId: record.containerId,
        namespacePath: files.namespacePath(record),
        endpoints: renderEndpoints(record, store),
        ports: record.ports.map(renderPort),
        resolvConf: files.resolvConf(record),
        hosts: files.hosts(record),
        revision,
      };
    }),
    releaseSandbox: unary(async ({ containerId }) => ({ revision: await sandboxes.release(containerId) })),
    connectSandbox: unary(
      async ({ containerId, endpoint: request }, { requestId }) => {
        if (request === undefined) throw invalidArgument('no endpoint given');
        const answer = ({ record, endpoint }: ConnectedSandbox, revision: bigint): proto.ConnectSandboxResponse => ({
          endpoint: renderEndpoint(endpoint, record, store.network(endpoint.networkId)?.name ?? ''),
          hosts: files.hosts(record),
          resolvConf: files.resolvConf(record),
          revision,
        });
        const connected = await sandboxes.connect(containerId, request, (made) => (batch) => {
          batch.reply(requestId, proto.ConnectSandboxResponse.encode(answer(made, batch.revision)).finish());
        });
        return answer(connected, connected.revision);
      },
      { idempotent: proto.ConnectSandboxResponse },
    ),
    disconnectSandbox: unary(
      async ({ containerId, network }, { requestId }) => ({
        revision: await sandboxes.disconnect(containerId, network, (batch) => {
          batch.reply(requestId, proto.DisconnectSandboxResponse.encode({ revision: batch.revision }).finish());
        }),
      }),
      { idempotent: proto.DisconnectSandboxResponse },
    ),
    renameSandbox: unary(async ({ containerId, containerName }) => {
      const { record, revision } = await sandboxes.rename(containerId, containerName);
      return { endpoints: renderEndpoints(record, store), revision };
    }),
    reconcileHolders: unary(async ({ liveContainerIds }) => ({
      released: await sandboxes.reconcile(liveContainerIds),
    })),
  });
}
