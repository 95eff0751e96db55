import { join } from 'node:path';
import { parseServiceConfig } from '@flotilla/config';
import type { ImageConfig } from '@flotilla/config';
import { internal } from '@flotilla/errors';
import { startOutboxPublisher } from '@flotilla/events';
import { createLogger } from '@flotilla/log';
import type { Logger } from '@flotilla/log';
import { registry } from '@flotilla/proto';
import { clientCredentials, connect, serve } from '@flotilla/rpc';
import type { RunningServer } from '@flotilla/rpc';
import { HybridClock, Store } from '@flotilla/store';
import { Catalog } from './catalog/catalog.js';
import { StoreCollector } from './catalog/collector.js';
import { StoreCheck } from './check/check-store.js';
import { ContainerLayers } from './containers/container-layers.js';
import { ContainerReaders } from './containers/container-readers.js';
import { ContentStore } from './content/content-store.js';
import { Images } from './images/images.js';
import { ManifestSummaries } from './images/manifest-summaries.js';
import { LayerStore, chooseStorageDriver } from './layers/index.js';
import { Puller } from './pull/pull-image.js';
import { RegistrySource } from './pull/registry-source.js';
import { BlobRepositories } from './push/blob-repositories.js';
import { Pusher } from './push/push-image.js';
import { RegistryTarget } from './push/registry-target.js';
import { imageRpc } from './rpc/image-rpc.js';

/** Parts that tests may replace. */
export interface ImageServiceDeps {
  readonly log: Logger;
  readonly now: () => Date;
}

/** Start the image service; disposing drains calls, ends work and closes the store. */
export async function startImageService(
  config: ImageConfig,
  overrides: Partial<ImageServiceDeps> = {},
): Promise<RunningServer> {
  const log = overrides.log ?? createLogger({ service: 'image', ...config.log });
  const now = overrides.now ?? (() => new Date());
  const proxyAddress = config.services['registry-proxy'];
  if (proxyAddress === undefined) throw internal('services.registry-proxy: no address configured');
  const cleanup: (() => PromiseLike<void> | void)[] = [];
  const dispose = async (): Promise<void> => {
    for (const step of cleanup.splice(0).reverse()) await step();
  };
  try {
    const clock = new HybridClock();
    const store = await Store.open(join(config.dataDir, 'db'), { service: 'image', schemaVersion: 1, clock });
    cleanup.push(() => store.close());
    const onBackgroundError = (err: unknown): void => log.warn({ err }, 'work on layers in the background failed');
    const { driver, warning } = await chooseStorageDriver(config.image.storageDriver, config.dataDir);
    if (warning !== undefined) log.warn({ driver }, warning);
    const layers = await LayerStore.open(config.dataDir, { onBackgroundError });
    cleanup.push(() => layers[Symbol.asyncDispose]());
    const content = await ContentStore.open(config.dataDir);
    const catalog = await Catalog.load(store, log);
    const collector = new StoreCollector(catalog, layers, content, log);
    catalog.collector = collector;
    await collector.sweep();

    const publisher = startOutboxPublisher(store.outbox, config.nats, log, { engineId: config.engineId });
    cleanup.push(() => publisher[Symbol.asyncDispose]());
    const credentials = config.tls === undefined ? {} : { credentials: await clientCredentials(config.tls) };
    const proxy = connect(registry.RegistryServiceService, proxyAddress, { log, clock, ...credentials });
    cleanup.push(() => proxy.close());

    const exchangeDir = join(config.dataRoot, 'exchange');
    const source = new RegistrySource(proxy, content, exchangeDir);
    const target = await RegistryTarget.open(proxy, content, exchangeDir);
    const repositories = await BlobRepositories.open(store, catalog, (digest) => content.has(digest), { log });
    const pusher = new Pusher({ catalog, content, target, repositories }, config.image.maxConcurrentUploads);
    const puller = new Puller({ catalog, content, layers, source, now }, config.image.maxConcurrentDownloads);
    const images = new Images({ catalog, layers, now });
    const readers = new ContainerReaders(catalog, layers);
    const containers = new ContainerLayers({ catalog, content, layers, readers, driver, log, now });
    await containers.restoreLeased();
    const restoring = new AbortController();
    containers.restoreOthers(restoring.signal);
    cleanup.push(() => {
      restoring.abort();
      return containers.restored();
    });
    const load = { catalog, content, layers, now };
    const check = new StoreCheck({
      catalog,
      content,
      layers,
      containers,
      distrust: (digest) => source.distrust(digest),
    });
    const manifests = new ManifestSummaries(catalog, content);
    const server = await serve({
      listen: config.listen,
      services: [
        imageRpc({
          catalog,
          images,
          puller,
          pusher,
          load,
          save: { catalog, content },
          commit: { ...load, readers },
          containers,
          check,
          manifests,
          exchangeDir,
        }),
      ],
      log,
      service: 'image',
      version: config.version,
      engineId: config.engineId,
      clock,
      replies: store.replies,
      details: () =>
        Promise.resolve({
          outboxPending: publisher.state.waiting,
          storageDriver: driver,
          warnings: warning === undefined ? [] : [warning],
        }),
      flushEvents: async () => {
        await store.outbox.flush();
        return `image-${store.outbox.lastSequence}`;
      },
      config: {
        prepare: (json) => {
          const next = parseServiceConfig('image', json, 'the new configuration');
          return Promise.resolve(() => {
            puller.maxConcurrentDownloads = next.image.maxConcurrentDownloads;
            pusher.maxConcurrentUploads = next.image.maxConcurrentUploads;
            return Promise.resolve();
          });
        },
      },
    });
    cleanup.push(() => server[Symbol.asyncDispose]());
    log.info({ address: server.address, images: catalog.all().length }, 'serving');
    return { address: server.address, health: server.health, [Symbol.asyncDispose]: dispose };
  } catch (error) {
    await dispose();
    throw error;
  }
}
