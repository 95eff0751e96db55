import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type { NetworkConfig } from '@flotilla/config';
import { startOutboxPublisher } from '@flotilla/events';
import { createLogger } from '@flotilla/log';
import type { Logger } from '@flotilla/log';
import { serve } from '@flotilla/rpc';
import type { RunningServer } from '@flotilla/rpc';
import { HybridClock, Store } from '@flotilla/store';
import { makeShared, startThreadPool, umountAll } from '@flotilla/sys';
import { Forwarder } from './dns/forwarder.js';
import { NameIndex } from './dns/name-index.js';
import { Resolver } from './dns/resolver.js';
import { linkGroup, tableName } from './engine-names.js';
import { Kernel } from './kernel/kernel.js';
import { networkSettings } from './network-settings-from-config.js';
import { Allocations } from './networks/allocations.js';
import { bridgeSpec } from './networks/bridge-spec.js';
import { Networks } from './networks/networks.js';
import { parentSpec } from './networks/parent-options.js';
import { HostPorts } from './ports/host-ports.js';
import { networkRpc } from './rpc/network-rpc.js';
import { HostResolver } from './sandboxes/host-resolver.js';
import { SandboxFiles } from './sandboxes/sandbox-files.js';
import { sandboxSpec } from './sandboxes/sandbox-spec.js';
import { Sandboxes } from './sandboxes/sandboxes.js';
import { NetworkStore, networkSchemaVersion } from './store/network-store.js';

/** What a test may replace. */
export interface NetworkOverrides {
  log?: Logger;
  store?: Store;
}

/**
 * Start the network service in the network namespace that the process is in: the "host" of its containers. It is ready when
 * this resolves: predefined networks are there, the kernel agrees with the store, and ports and DNS are served again.
 *
 * Disposing leaves the traffic of running containers alone; with no sandbox left it takes bridges and rules away too.
 */
export async function startNetworkService(
  config: NetworkConfig,
  overrides: NetworkOverrides = {},
): Promise<RunningServer> {
  const settings = networkSettings(config);
  const log = overrides.log ?? createLogger({ service: 'network', ...config.log });
  const { engineId } = config;
  const cleanup: AsyncDisposable[] = [];
  const use = <T extends AsyncDisposable>(item: T): T => {
    cleanup.push(item);
    return item;
  };
  const dispose = async (): Promise<void> => {
    for (const item of cleanup.splice(0).reverse()) await item[Symbol.asyncDispose]();
  };
  try {
    await startThreadPool();
    const namespaceDirectory = join(config.execRoot, 'netns');
    mkdirSync(namespaceDirectory, { recursive: true });
    makeShared(namespaceDirectory);
    const kernel = use(
      new Kernel(log, (err) => {
        log.fatal({ err }, 'kernel worker died');
        process.exit(1);
      }),
    );
    const opened = kernel.call('open', {
      table: tableName(engineId),
      linkGroup: linkGroup(engineId),
      namespaceDirectory,
      markerDirectory: join(config.execRoot, 'network', 'sandboxes'),
      firewall: {
        ...settings.firewall,
        isDirectRoutingAllowed: settings.isDirectRoutingAllowed,
        ...(settings.acceptedMark === undefined ? {} : { acceptedMark: settings.acceptedMark }),
      },
      isForwardingOn: settings.isForwardingOn,
    });
    opened.catch(() => undefined); // awaited below, when the store is open too
    const clock = new HybridClock();
    const open = (): Promise<Store> =>
      Store.open(join(config.dataDir, 'db'), { service: 'network', schemaVersion: networkSchemaVersion, clock });
    const db = use(overrides.store ?? (await open()));
    const store = await NetworkStore.load(db, log);
    const publisher = use(startOutboxPublisher(db.outbox, config.nats, log, { engineId }));
    await opened;

    const allocations = new Allocations();
    const networks = new Networks({ store, kernel, allocations, settings, clock: db.clock, log });
    await networks.ensurePredefined();
    const networkOf = store.network.bind(store);
    for (const record of store.networks()) allocations.addNetwork(record);
    for (const endpoint of store.sandboxes().flatMap((sandbox) => sandbox.endpoints)) {
      const record = store.network(endpoint.networkId);
      if (record !== undefined) allocations.restore(record, endpoint);
    }
    const links = () => ({
      bridges: store.networks().flatMap((record) => bridgeSpec(record) ?? []),
      parents: store.networks().flatMap((record) => parentSpec(record) ?? []),
    });
    const recorded = store.sandboxes().flatMap((sandbox) => sandboxSpec(sandbox, networkOf) ?? []);
    const { incomplete } = await kernel.call('reconcile', { ...links(), sandboxes: recorded });

    const files = new SandboxFiles(store, settings, new HostResolver(settings.resolvConfPath), namespaceDirectory);
    const names = new NameIndex(networkOf);
    const resolver = new Resolver({
      ...{ names, forwarder: new Forwarder() },
      upstreams: (id) => files.upstreams(id),
      completesNames: (id) => files.completesNames(id),
    });
    const sandboxes = new Sandboxes({
      ...{ store, kernel, allocations, networks, names, resolver, log },
      hostPorts: new HostPorts(settings.defaultHostIp),
      hostGateways: () => files.hostGateways(),
    });
    use({
      [Symbol.asyncDispose]: async () => {
        sandboxes.close();
        if (store.sandboxes().length > 0) return;
        await kernel.call('dismantle', links());
        umountAll(namespaceDirectory);
      },
    });
    await sandboxes.restore(incomplete);

    const server = use(
      await serve({
        listen: config.listen,
        services: [networkRpc({ store, networks, sandboxes, files })],
        ...{ log, engineId, service: 'network', version: config.version },
        clock: db.clock,
        replies: db.replies,
        details: () => Promise.resolve({ outboxPending: publisher.state.waiting }),
        flushEvents: async () => {
          await db.outbox.flush();
          return `network-${db.outbox.lastSequence}`;
        },
      }),
    );
    return { address: server.address, health: server.health, [Symbol.asyncDispose]: dispose };
  } catch (error) {
    await dispose();
    throw error;
  }
}
