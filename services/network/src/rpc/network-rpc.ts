import { network as proto, timestampToNs } from '@flotilla/proto';
import { invalidArgument } from '@flotilla/errors';
import { serverStream, serviceEntry, unary } from '@flotilla/rpc';
import type { ServiceEntry } from '@flotilla/rpc';
import type { Networks } from '../networks/networks.js';
import type { SandboxFiles } from '../sandboxes/sandbox-files.js';
import type { ConnectedSandbox, Sandboxes } from '../sandboxes/sandboxes.js';
import type { NetworkStore } from '../store/network-store.js';
import { NetworkChanges } from '../watch.js';
import { matchesLabels } from './label-filter.js';
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
    listNetworks: unary(() =>
      Promise.resolve({
        networks: store.networks().map((record) => renderNetwork(record, store)),
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
    pruneNetworks: unary(async ({ until, labels, excludedLabels }) =>
      networks.prune({
        ...(until === undefined ? {} : { untilNs: timestampToNs(until) }),
        matchesLabels: (own) => matchesLabels(own, labels, excludedLabels),
      }),
    ),
    watchNetworks: serverStream((_request, { signal }) => watch(store, signal)),
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

async function* watch(store: NetworkStore, signal: AbortSignal): AsyncGenerator<proto.WatchNetworksResponse> {
  const changes = new NetworkChanges(store);
  try {
    const { revision } = store;
    const snapshot = store.networks().map((record) => renderNetwork(record, store));
    for (const value of snapshot) yield { revision, change: { $case: 'upsert', value } };
    yield { revision, change: { $case: 'synced', value: {} } };
    for await (const { id, revision: changed, isRemoved } of changes.read(signal)) {
      const record = isRemoved ? undefined : store.network(id);
      if (record !== undefined)
        yield { revision: changed, change: { $case: 'upsert', value: renderNetwork(record, store) } };
      else yield { revision: changed, change: { $case: 'removed', value: id } };
    }
  } finally {
    changes.close();
  }
}
