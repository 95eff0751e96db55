import { createServer } from 'node:net';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { once } from 'node:events';
import type { RegistryConfig } from '@flotilla/config';
import { silentLogger } from '@flotilla/log';
import { config as configProto, registry } from '@flotilla/proto';
import type { common } from '@flotilla/proto';
import { connect } from '@flotilla/rpc';
import type { TypedClient } from '@flotilla/rpc';
import { startRegistryProxyService } from '../src/index.js';

export interface ProxyUnderTest extends AsyncDisposable {
  readonly client: TypedClient<typeof registry.RegistryServiceService>;
  /** Change the `registry` block as a reload does. */
  reload(settings: Partial<RegistryConfig['registry']>): Promise<void>;
}

export const noCredentials: common.RegistryCredentials | undefined = undefined;

/** registry-proxy in this process, quick to give up, over gRPC. */
export async function startProxy(
  dataRoot: string,
  settings: Partial<RegistryConfig['registry']> = {},
): Promise<ProxyUnderTest> {
  const config: RegistryConfig = {
    service: 'registry-proxy',
    version: '0.0.0',
    engineId: 'test',
    dataRoot,
    execRoot: dataRoot,
    dataDir: join(dataRoot, 'registry-proxy'),
    listen: { kind: 'tcp', host: '127.0.0.1', port: 0 },
    services: {},
    nats: null,
    log: { level: 'silent', format: 'json' },
    registry: {
      insecureRegistries: [],
      mirrors: [],
      certsDir: join(dataRoot, 'certs.d'),
      maxConcurrentDownloads: 3,
      connectTimeoutMs: 2_000,
      headersTimeoutMs: 1_500,
      bodyTimeoutMs: 1_500,
      retryDelayMs: 20,
      maxRetryDelayMs: 100,
      ...settings,
    },
  };
  const server = await startRegistryProxyService(config, { log: silentLogger() });
  const client = connect(registry.RegistryServiceService, server.address, { log: silentLogger() });
  const control = connect(configProto.ConfigServiceService, server.address, { log: silentLogger() });
  return {
    client,
    async reload(changes) {
      const configJson = JSON.stringify({ ...config, registry: { ...config.registry, ...changes } });
      await control.prepareConfig({ reloadId: 'r1', configJson }, { deadlineMs: 5_000 });
      await control.commitConfig({ reloadId: 'r1' }, { deadlineMs: 5_000 });
    },
    async [Symbol.asyncDispose]() {
      client.close();
      control.close();
      await server[Symbol.asyncDispose]();
    },
  };
}

export interface Fetched {
  readonly progress: registry.FetchProgress[];
  readonly data: Buffer;
  readonly done: registry.FetchedBlob;
}

/** Run FetchBlob to its end. */
export async function fetchAll(stream: AsyncIterable<registry.FetchBlobResponse>): Promise<Fetched> {
  const progress: registry.FetchProgress[] = [];
  const data: Buffer[] = [];
  let done: registry.FetchedBlob | undefined;
  for await (const { event } of stream) {
    if (event?.$case === 'progress') progress.push(event.value);
    else if (event?.$case === 'data') data.push(event.value);
    else done = event?.value;
  }
  if (done === undefined) throw new Error('the stream ended without done');
  return { progress, data: Buffer.concat(data), done };
}

/** A port that was free a moment ago. */
export async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}
