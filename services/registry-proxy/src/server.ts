import { join } from 'node:path';
import { parseServiceConfig } from '@flotilla/config';
import type { RegistryConfig } from '@flotilla/config';
import { createLogger } from '@flotilla/log';
import type { Logger } from '@flotilla/log';
import { serve } from '@flotilla/rpc';
import type { RunningServer } from '@flotilla/rpc';
import { BlobCache } from './blobs/blob-cache.js';
import { BlobTransfers } from './blobs/blob-transfers.js';
import { BlobWriters } from './blobs/blob-writer.js';
import { CacheIndex } from './cache/cache-index.js';
import { cacheMetrics } from './cache/cache-metrics.js';
import { CachedManifests } from './cache/cached-manifests.js';
import { registrySettings } from './config.js';
import type { RegistrySettings } from './config.js';
import { registryRpc } from './rpc/registry-rpc.js';
import { Endpoints } from './upstream/endpoints.js';
import { HttpTransport } from './upstream/http-transport.js';
import { Manifests } from './upstream/manifests.js';
import { RegistryClient } from './upstream/registry-client.js';
import type { RetryRules } from './upstream/retry.js';

/** As in dockerd, where no setting changes it. */
const maxUploadAttempts = 5;
/** A registry may copy a whole blob before it answers the last request. */
const commitPatience = 10;
const evictEveryMs = 60_000;

/** Parts that tests may replace. */
export interface RegistryProxyDeps {
  readonly log: Logger;
}

/** Start registry-proxy; disposing drains calls and closes connections and writer threads. */
export async function startRegistryProxyService(
  config: RegistryConfig,
  overrides: Partial<RegistryProxyDeps> = {},
): Promise<RunningServer> {
  const settings = registrySettings(config);
  const log = overrides.log ?? createLogger({ service: 'registry-proxy', ...config.log });
  const exchangeDir = join(config.dataRoot, 'exchange');
  const cache = await BlobCache.open({
    blobsDir: join(config.dataDir, 'blobs'),
    exchangeDir,
    maxBytes: settings.cacheBytes,
    maxPartialBytes: settings.partialBytes,
  });
  const index = new CacheIndex(config.dataDir, log);
  const transport = new HttpTransport({ ...settings, userAgent: `flotilla/${config.version}` });
  const writers = new BlobWriters();
  const endpoints = new Endpoints(settings);
  const client = new RegistryClient(endpoints, transport);
  const retry = retryRules(settings);
  const manifestRetry = manifestRetryRules(settings);
  const manifests = new CachedManifests(new Manifests(client, manifestRetry), index, log);
  const transfers = new BlobTransfers({ client, retry, cache, access: index, writers });
  // Blobs become the cache's own when the image service lets go of them: nobody tells.
  const evicting = setInterval(() => cache.evictSoon(), evictEveryMs).unref();
  const uploads = {
    client,
    retry: { ...retry, attempts: maxUploadAttempts },
    chunkBytes: settings.uploadChunkBytes,
    commitTimeoutMs: commitPatience * settings.headersTimeoutMs,
  };
  let distribution: AsyncDisposable | undefined;
  const dispose = async (): Promise<void> => {
    clearInterval(evicting);
    await distribution?.[Symbol.asyncDispose]();
    await writers[Symbol.asyncDispose]();
    await transport[Symbol.asyncDispose]();
    await cache.settled();
    await index[Symbol.asyncDispose]();
  };
  try {
    if (settings.serve !== undefined) {
      // Loaded only where it is wanted.
      const { serveDistribution } = await import('./distribution/distribution-server.js');
      distribution = await serveDistribution(settings.serve, { client, manifests, transfers, cache, log });
      log.info({ address: `${settings.serve.host}:${settings.serve.port}` }, 'serving the cache as a registry');
    }
    const server = await serve({
      listen: config.listen,
      services: [registryRpc({ transport, endpoints, client, manifests, transfers, cache, uploads, exchangeDir })],
      log,
      service: 'registry-proxy',
      version: config.version,
      engineId: config.engineId,
      ownMetrics: async () => cacheMetrics(await cache.usage(), client.openCircuits),
      config: {
        prepare: (json) => {
          const next = registrySettings(parseServiceConfig('registry-proxy', json, 'the new configuration'));
          const apply = [endpoints.prepare(next), transport.prepareProxies(next.proxies)];
          return Promise.resolve(async () => {
            for (const each of apply) each();
            Object.assign(retry, retryRules(next));
            Object.assign(manifestRetry, manifestRetryRules(next));
            cache.maxBytes = next.cacheBytes;
            client.forgetReached();
            // Certificates may have changed too.
            await transport.reset();
          });
        },
      },
    });
    log.info({ address: server.address }, 'serving');
    return {
      address: server.address,
      health: server.health,
      async [Symbol.asyncDispose]() {
        await server[Symbol.asyncDispose]();
        await dispose();
      },
    };
  } catch (error) {
    await dispose();
    throw error;
  }
}

const retryRules = ({ maxDownloadAttempts, retryDelayMs, maxRetryDelayMs }: RegistrySettings): RetryRules => ({
  attempts: maxDownloadAttempts,
  firstDelayMs: retryDelayMs,
  maxDelayMs: maxRetryDelayMs,
});

/** A manifest is what a user waits for with nothing on the screen: fewer tries, shorter waits. */
function manifestRetryRules(settings: RegistrySettings): RetryRules {
  const { attempts, firstDelayMs, maxDelayMs } = retryRules(settings);
  return {
    attempts: Math.min(3, attempts),
    firstDelayMs: Math.min(250, firstDelayMs),
    maxDelayMs: Math.min(2_000, maxDelayMs),
  };
}
