import { join } from 'node:path';
import type { VolumeConfig } from '@flotilla/config';
import { silentLogger } from '@flotilla/log';
import { volume } from '@flotilla/proto';
import { connect } from '@flotilla/rpc';
import { umountAll } from '@flotilla/sys';
import { makeTempDir } from '@flotilla/testkit';
import type { VolumeOverrides } from '@flotilla/volume';
import { startVolumeService } from '@flotilla/volume';

export const log = silentLogger();
export const deadline = { deadlineMs: 10_000 };
export const engineId = '0b7c9a4e-6f0d-4e52-9d46-2f6f8f0a1c11';

/** A container id that is easy to tell apart. */
export const containerId = (digit: string) => digit.repeat(64).slice(0, 64);
export const holder = (digit: string) => ({ containerId: containerId(digit), containerName: `c-${digit}` });

export function connectVolume(address: string) {
  return connect(volume.VolumeServiceService, address, { log });
}

export function configFor(root: string, nats: VolumeConfig['nats'] = null): VolumeConfig {
  return {
    ...{ service: 'volume', version: '0.1.0', engineId, nats, volume: {}, services: {} },
    dataRoot: root,
    execRoot: join(root, 'run'),
    dataDir: join(root, 'volume'),
    listen: { kind: 'unix', path: join(root, 'run', 'volume.sock') },
    log: { level: 'silent', format: 'json' },
  };
}

/** A data root with a volume service that can be stopped and started again on it. */
export async function makeVolumeService(overrides: VolumeOverrides = {}, nats: VolumeConfig['nats'] = null) {
  const root = await makeTempDir('volume');
  const config = configFor(root.path, nats);
  let server = await startVolumeService(config, { log, ...overrides });
  const client = connectVolume(server.address);
  return {
    client,
    config,
    root: root.path,
    pathOf: (name: string) => join(root.path, 'volumes', name, '_data'),
    async restart(between: () => Promise<void> = () => Promise.resolve()): Promise<void> {
      await server[Symbol.asyncDispose]();
      await between();
      server = await startVolumeService(config, { log, ...overrides });
    },
    async [Symbol.asyncDispose](): Promise<void> {
      client.close();
      await server[Symbol.asyncDispose]();
      umountAll(join(root.path, 'volumes'));
      await root[Symbol.asyncDispose]();
    },
  };
}
