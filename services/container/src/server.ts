import { chmod, mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { ContainerConfig } from '@flotilla/config';
import { startOutboxPublisher } from '@flotilla/events';
import { createLogger, type Logger } from '@flotilla/log';
import { container, image, network, volume } from '@flotilla/proto';
import {
  clientCredentials,
  connect,
  type ConnectOptions,
  isUnixAddress,
  type RunningServer,
  serve,
  serviceEntry,
} from '@flotilla/rpc';
import { HybridClock, Store } from '@flotilla/store';
import { readComponents } from './components.js';
import { AppArmor } from './apparmor/apparmor.js';
import { ArchiveThreads } from './archive/archive-threads.js';
import { settingsOf } from './config.js';
import type { ContainerSettings } from './containers/settings.js';
import { Archiver } from './containers/archiver.js';
import { Containers } from './containers/containers.js';
import { containerSpecBuilder } from './containers/container-spec.js';
import { checkUserNamespace } from './containers/check-user-namespace.js';
import { Recovery } from './containers/recovery.js';
import { archiveRoot } from './containers/settings.js';
import type { BuildSpec } from './containers/spec-input.js';
import { ExecStore } from './execs/exec-store.js';
import { Execs } from './execs/execs.js';
import { execProbe } from './health/exec-probe.js';
import { HealthMonitor } from './health/health-monitor.js';
import { logMetrics } from './logs/log-metrics.js';
import { checkLogOptions } from './logs/options/sink-config.js';
import { IdMaps } from './rootfs/id-maps.js';
import { RootfsWorkers } from './rootfs/rootfs-threads.js';
import { archiveRpc } from './rpc/archive-rpc.js';
import { checkpointRpc } from './rpc/checkpoint-rpc.js';
import { execRpc } from './rpc/exec-rpc.js';
import { grpcPeers } from './rpc/grpc-peers.js';
import { imageContentRpc } from './rpc/image-content-rpc.js';
import { lifecycleRpc } from './rpc/lifecycle-rpc.js';
import { observeRpc } from './rpc/observe-rpc.js';
import { streamsRpc } from './rpc/streams-rpc.js';
import { ShimRuntime } from './runtime/shim-runtime.js';
import { ContainerStore, schemaVersion } from './store/container-store.js';

/** What a test may replace. */
export interface ContainerServiceOverrides {
  log?: Logger;
  buildSpec?: BuildSpec;
}

/**
 * Start the container service; containers that run are watched again when this resolves. Disposing drains calls and lets go of the containers,
 * which run on.
 */
export async function startContainerService(
  config: ContainerConfig,
  overrides: ContainerServiceOverrides = {},
): Promise<RunningServer> {
  const log = overrides.log ?? createLogger({ service: 'container', ...config.log });
  const clock = new HybridClock();
  const cleanup: AsyncDisposable[] = [];
  const dispose = async (): Promise<void> => {
    for (const item of cleanup.splice(0).reverse()) await item[Symbol.asyncDispose]();
  };
  const use = <T extends AsyncDisposable>(item: T): T => {
    cleanup.push(item);
    return item;
  };
  try {
    const settings = settingsOf(config);
    warnOfLogOptions(settings, log);
    await mkdir(settings.bundlesDir, { recursive: true });
    // The roots of remapped containers get through to their root file systems; each bundle is closed by itself.
    await chmod(settings.bundlesDir, 0o711);
    await mkdir(join(settings.dataDir, 'containers'), { recursive: true, mode: 0o710 });
    await mkdir(archiveRoot(settings), { recursive: true, mode: 0o700 });
    const dbOptions = { service: 'container', schemaVersion, clock };
    const db = use(await Store.open(join(config.dataDir, 'db'), dbOptions));
    const store = await ContainerStore.load(db, log);
    const { engineId } = config;
    const publisher = use(startOutboxPublisher(db.outbox, config.nats, log, { engineId }));
    const rootfs = use(await RootfsWorkers.start());
    const idMaps = use(new IdMaps());
    if (config.container.userNamespace !== undefined) {
      await checkUserNamespace({ settings, rootfs, idMaps, needsOverlay: config.container.storageDriver !== 'vfs' });
    }
    const archiveThreads = use(new ArchiveThreads());
    const runtime = await ShimRuntime.open({ execRoot: config.execRoot, log, onFatal: failProcess });
    use({ [Symbol.asyncDispose]: () => runtime.close() });
    const link = (peer: string): Promise<[string, ConnectOptions]> => linkTo(config, peer, log, clock);
    const clients = {
      image: connect(image.ImageServiceService, ...(await link('image'))),
      network: connect(network.NetworkServiceService, ...(await link('network'))),
      volume: connect(volume.VolumeServiceService, ...(await link('volume'))),
    };
    use({
      [Symbol.asyncDispose]: () => {
        for (const client of Object.values(clients)) client.close();
        return Promise.resolve();
      },
    });
    const appArmor = new AppArmor();
    // Not waited for: a start does it again, and tells its user.
    appArmor.ensureDefault().catch((error: unknown) => log.error({ err: error }, 'no AppArmor profile for containers'));
    const containers = new Containers({
      ...{ store, runtime, rootfs, idMaps, settings, log, appArmor },
      peers: grpcPeers(clients),
      buildSpec: overrides.buildSpec ?? containerSpecBuilder(config.container),
      nowNs: () => clock.now(),
    });
    use({ [Symbol.asyncDispose]: () => containers.close() });
    const recovery = use(new Recovery(containers));
    await recovery.beforeServing();
    const execs = use(new Execs(containers.context, await ExecStore.load(db, store)));
    await execs.recover();
    use(new HealthMonitor(containers.context, execProbe(execs)));
    // Asked when somebody wants to know: two programs have to be run.
    let components: ReturnType<typeof readComponents> | undefined;
    const runc = settings.runtimes.get(settings.defaultRuntime) ?? settings.defaultRuntime;
    const server = use(
      await serve({
        listen: config.listen,
        services: [
          serviceEntry(container.ContainerServiceService, {
            ...lifecycleRpc(containers),
            ...streamsRpc(containers),
            ...checkpointRpc(containers),
            ...execRpc(execs),
            ...observeRpc(containers),
            ...imageContentRpc(containers, clients.image),
            ...archiveRpc(new Archiver(containers.context, archiveThreads)),
          }),
        ],
        ...{ log, engineId, clock, service: 'container', version: config.version },
        replies: db.replies,
        ownMetrics: () => Promise.resolve(logMetrics(runtime.lostLogBytes)),
        details: async () => ({
          outboxPending: publisher.state.waiting,
          warnings: containers.quarantine.warnings(),
          components: await (components ??= readComponents(runc, settings.initPath)),
        }),
        flushEvents: async () => {
          await db.outbox.flush();
          return `container-${db.outbox.lastSequence}`;
        },
      }),
    );
    await recovery.startByPolicies();
    return { address: server.address, health: server.health, [Symbol.asyncDispose]: dispose };
  } catch (error) {
    await dispose();
    throw error;
  }
}

async function linkTo(
  config: ContainerConfig,
  peer: string,
  log: Logger,
  clock: HybridClock,
): Promise<[string, ConnectOptions]> {
  const address = config.services[peer] ?? `unix:${join(config.execRoot, `${peer}.sock`)}`;
  const { tls } = config;
  if (tls === undefined || isUnixAddress(address)) return [address, { log, clock }];
  return [address, { log, clock, credentials: await clientCredentials(tls) }];
}

/** The process is of no use without its runtime: it ends loudly and is started again, while containers run on. */
function failProcess(error: Error): void {
  setImmediate(() => {
    throw error;
  });
}

/** Wrong `log-opts` of the engine refuse each create that does not override them; containers that run are not to suffer from it. */
function warnOfLogOptions({ defaultLogDriver, defaultLogOptions }: ContainerSettings, log: Logger): void {
  try {
    checkLogOptions(defaultLogDriver, defaultLogOptions);
  } catch (error) {
    log.error({ err: error }, 'log-driver and log-opts of the engine do not fit together');
  }
}
