import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { readMounts } from '@flotilla/sys';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { archiveClient, openBody } from './archive-client.js';
import { canRun, connectContainers, createRequest, deadline, makeEngineRoot } from './container-fixture.js';
import { ServiceProcess } from './service-process.js';

describe.skipIf(!canRun)('kill -9 of the container service during copies (needs root, shim, runc, busybox)', () => {
  let engine: Awaited<ReturnType<typeof makeEngineRoot>>;
  let service: ServiceProcess;
  let client: ReturnType<typeof connectContainers>;
  let cp: ReturnType<typeof archiveClient>;
  beforeAll(async () => {
    engine = await makeEngineRoot();
    engine.peers.images.add('tree', {}, (layer) => {
      mkdirSync(join(layer, 'data'));
      writeFileSync(join(layer, 'data/big'), Buffer.alloc(32 << 20, 'b'));
    });
    service = new ServiceProcess(engine.config);
    client = connectContainers(`unix:${join(engine.config.execRoot, 'container.sock')}`);
    cp = archiveClient(client);
    await client.listContainers({}, deadline);
  });
  afterAll(async () => {
    client.close();
    await service[Symbol.asyncDispose]();
    await engine[Symbol.asyncDispose]();
  });

  it.each(['stopped', 'running'] as const)('leaves nothing of a container that is %s', async (state) => {
    const request = createRequest(['sleep', '1000'], {
      ...{ name: state, image: 'tree', hostConfig: { binds: [`vol-${state}:/vol`] } },
    });
    const { id } = await client.createContainer(request, deadline);
    const start = () => client.startContainer({ name: id, checkpoint: '', checkpointDir: '' }, deadline);
    if (state === 'running') await start();
    const begun = join(engine.peers.volumes.pathOf(`vol-${state}`), 'begun');

    const { body, end } = openBody();
    const failing = cp.write(id, '/vol', body).catch((error: unknown) => error);
    await expect.poll(() => existsSync(begun), { timeout: 20_000 }).toBe(true);
    await service.kill();
    end();
    expect(await failing).toMatchObject({ kind: 'unavailable' });

    const reading = client.readArchive({ name: id, path: '/data' })[Symbol.asyncIterator]();
    await reading.next();
    await service.kill();
    const drain = async (): Promise<void> => {
      while ((await reading.next()).done !== true);
    };
    await expect(drain()).rejects.toMatchObject({ kind: 'unavailable' });

    // Nothing holds the root file system: it can be mounted again, and the container is what it was.
    await client.listContainers({}, deadline);
    if (state === 'stopped') {
      await expect.poll(() => engine.leftovers(), { timeout: 20_000 }).toEqual([]);
      expect([...engine.peers.volumes.mounted]).toEqual([]);
      await start();
    }
    expect(await cp.stat(id, '/vol/begun')).toMatchObject({ name: 'begun', sizeBytes: 1n });
    await client.removeContainer({ name: id, force: true, volumes: true, link: false }, deadline);
    await expect.poll(() => engine.leftovers(), { timeout: 20_000 }).toEqual([]);
    expect(readMounts().filter(({ target }) => target.startsWith(`${engine.root}/container/`))).toEqual([]);
  });
});
