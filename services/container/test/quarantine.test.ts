import { existsSync, readdirSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { config, container } from '@flotilla/proto';
import { connect } from '@flotilla/rpc';
import { type Codec, Store } from '@flotilla/store';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  canRun,
  connectContainers,
  createRequest,
  deadline,
  log,
  makeEngineRoot,
  waitFor,
} from './container-fixture.js';
import { ServiceProcess } from './service-process.js';

const { ContainerStatus } = container;
const raw: Codec<Uint8Array> = { encode: (bytes) => bytes, decode: (bytes) => Uint8Array.from(bytes) };

describe.skipIf(!canRun)('what a container is made of is damaged (needs root, shim, runc, busybox)', () => {
  let engine: Awaited<ReturnType<typeof makeEngineRoot>>;
  let service: ServiceProcess;
  let client: ReturnType<typeof connectContainers>;
  beforeAll(async () => {
    engine = await makeEngineRoot();
    service = new ServiceProcess(engine.config);
    client = connectContainers(`unix:${join(engine.config.execRoot, 'container.sock')}`);
    await client.listContainers({}, deadline);
  });
  afterAll(async () => {
    for (const { id } of (await client.listContainers({}, deadline)).containers) await remove(id);
    client.close();
    await service[Symbol.asyncDispose]();
    await engine[Symbol.asyncDispose]();
  });

  const inspect = async (name: string) => {
    const { container: shown } = await client.getContainer({ name, size: false }, deadline);
    if (shown?.state === undefined) throw new Error('no state');
    return { ...shown, state: shown.state };
  };
  const statusOf = async (name: string) => (await inspect(name)).state.status;
  const create = async (name: string, cmd = ['sleep', '600'], fields: Parameters<typeof createRequest>[1] = {}) =>
    (await client.createContainer({ ...createRequest(cmd, fields), name }, deadline)).id;
  const start = (name: string) => client.startContainer({ name, checkpoint: '', checkpointDir: '' }, deadline);
  const run = async (...args: Parameters<typeof create>) => {
    const id = await create(...args);
    await start(id);
    return id;
  };
  const remove = (name: string) => client.removeContainer({ name, force: true, volumes: true, link: false }, deadline);
  const warnings = async () => {
    const address = `unix:${join(engine.config.execRoot, 'container.sock')}`;
    const asked = connect(config.ConfigServiceService, address, { log });
    try {
      return (await asked.getServiceInfo({}, deadline)).warnings;
    } finally {
      asked.close();
    }
  };
  /** While the service is down. */
  const inStore = async (work: (store: Store) => Promise<void>): Promise<void> => {
    await service.killForGood();
    const path = join(engine.config.dataDir, 'db');
    await using store = await Store.open(path, { service: 'container', schemaVersion: 1 });
    await work(store);
  };
  const overwrite = (collection: string, key: string, text: string | undefined) =>
    inStore(async (store) => {
      const entries = store.collection(collection, raw);
      await store.commit((batch) =>
        text === undefined ? batch.delete(entries, key) : batch.put(entries, key, Buffer.from(text)),
      );
    });
  const aside = async (): Promise<string[]> => {
    const keys: string[] = [];
    await inStore(async (store) => {
      for (const [key] of await store.collection('damaged', raw).all()) keys.push(key);
    });
    service.start();
    return keys;
  };

  it.each([
    ['containers', '\u0007not a container'],
    ['containers', ''],
    ['container-internals', '{"mounts":'],
    ['container-internals', 'null'],
    ['container-internals', undefined],
  ])('a damaged record: %s %j', async (collection, text) => {
    const other = await run('other');
    const id = await create('broken', ['sh', '-c', 'true'], { hostConfig: { binds: ['kept:/data', '/anonymous'] } });
    await overwrite(collection, id, text);
    service.start();
    const found = await inspect(id);
    expect(found.state.status).toBe(ContainerStatus.DEAD);
    expect(found.state.error).toContain('its record is damaged');
    expect(found.name).toBe(collection === 'containers' ? id.slice(0, 12) : 'broken');
    expect(await statusOf(other)).toBe(ContainerStatus.RUNNING);
    expect(await warnings()).toEqual([
      `container ${found.name} (${id.slice(0, 12)}) is in quarantine: ${found.state.error}`,
    ]);
    // What it holds stays, and so does what was found.
    expect(engine.peers.images.layers.has(id)).toBe(true);
    expect(await aside()).toEqual(text === undefined ? [] : [`${collection}/${id}`]);
    await expect(start(id)).rejects.toMatchObject({ kind: 'conflict' });
    await client.pruneContainers({ labels: [], excludedLabels: [] }, deadline);
    expect(await statusOf(id)).toBe(ContainerStatus.DEAD);
    await remove(id);
    expect(engine.peers.images.layers.has(id)).toBe(false);
    expect(engine.peers.volumes.volumes.get('kept')?.holders.size).toBe(0);
    expect(await aside()).toEqual([]);
    await remove(other);
    expect(engine.leftovers()).toEqual([]);
  });

  it('a damaged record of a container that runs: its processes go on until it is removed', async () => {
    const id = await run('broken');
    const { pid } = (await inspect(id)).state;
    await overwrite('container-internals', id, 'x');
    service.start();
    expect(await statusOf(id)).toBe(ContainerStatus.DEAD);
    expect(existsSync(`/proc/${pid}`)).toBe(true);
    await remove(id);
    await expect.poll(() => existsSync(`/proc/${pid}`), { timeout: 20_000 }).toBe(false);
    expect(engine.leftovers()).toEqual([]);
  });

  it('damaged records of other kinds are set aside and change nothing', async () => {
    await overwrite('tombstones', 'a'.repeat(64), '{');
    service.start();
    await client.listContainers({}, deadline);
    await overwrite('execs', 'b'.repeat(64), '{');
    service.start();
    await client.listContainers({}, deadline);
    await overwrite('engine', 'start', '{');
    service.start();
    await client.listContainers({}, deadline);
    expect(await aside()).toEqual(['engine/start', `execs/${'b'.repeat(64)}`, `tombstones/${'a'.repeat(64)}`]);
    expect(await warnings()).toEqual([]);
  });

  it('a layer that is gone: dead until it is back, or removed', async () => {
    const id = await create('gone', ['true']);
    const { upperDir } = await inspect(id);
    await service.killForGood();
    renameSync(upperDir, `${upperDir}.away`);
    service.start();
    expect((await inspect(id)).state).toMatchObject({
      status: ContainerStatus.DEAD,
      error: expect.stringContaining(`its writable layer is gone: ${upperDir}`) as unknown,
    });
    await expect(start(id)).rejects.toMatchObject({ kind: 'conflict' });
    renameSync(`${upperDir}.away`, upperDir);
    await start(id);
    expect(await waitFor(client, id)).toBe(0);
    rmSync(upperDir, { recursive: true });
    await service.kill();
    expect(await statusOf(id)).toBe(ContainerStatus.DEAD);
    expect(await warnings()).toHaveLength(1);
    await remove(id);
    expect(await warnings()).toEqual([]);
    expect(engine.leftovers()).toEqual([]);
  });

  it('a removal that fails leaves it dead with the reason, and works when that is gone', async () => {
    const id = await create('stuck', ['true']);
    engine.peers.images.failure = 'the layer is busy';
    await expect(remove(id)).rejects.toThrow('the layer is busy');
    expect((await inspect(id)).state).toMatchObject({ status: ContainerStatus.DEAD, error: 'the layer is busy' });
    await service.kill();
    expect(await statusOf(id)).toBe(ContainerStatus.DEAD);
    engine.peers.images.failure = undefined;
    await remove(id);
    await expect(inspect(id)).rejects.toMatchObject({ kind: 'notFound' });
    expect(engine.leftovers()).toEqual([]);
  });

  it.each([
    ['its shim lives', false],
    ['its shim is gone too', true],
  ])('the bundle of one that runs is deleted, %s: it has ended, as it says', async (_what, withShim) => {
    const id = await run('bare');
    const { pid } = (await inspect(id)).state;
    const bundle = join(engine.bundles, id);
    const shim = Number(readFileSync(join(bundle, 'shim.pid'), 'utf8'));
    if (withShim) await service.killForGood();
    for (const name of readdirSync(bundle)) if (name !== 'rootfs') rmSync(join(bundle, name), { recursive: true });
    if (withShim) {
      process.kill(shim, 'SIGKILL');
      await expect.poll(() => existsSync(`/proc/${shim}`), { timeout: 20_000 }).toBe(false);
      expect(existsSync(`/proc/${pid}`)).toBe(true);
      service.start();
    } else {
      expect(await statusOf(id)).toBe(ContainerStatus.RUNNING);
      await service.kill();
    }
    // Its output cannot be had any more, so it is ended.
    expect(await waitFor(client, id)).toBe(137);
    expect((await inspect(id)).state).toMatchObject({ status: ContainerStatus.EXITED, pid: 0 });
    await expect.poll(() => existsSync(`/proc/${pid}`), { timeout: 20_000 }).toBe(false);
    await expect.poll(() => existsSync(bundle), { timeout: 20_000 }).toBe(false);
    await start(id);
    expect(await statusOf(id)).toBe(ContainerStatus.RUNNING);
    await remove(id);
    expect(engine.leftovers()).toEqual([]);
  });

  it('the directory of one that runs is deleted: it goes on, and is made anew', async () => {
    const id = await run('plain', ['sh', '-c', 'sleep 1; while [ ! -e /go ]; do sleep 0.1; done; echo later']);
    const { pid } = (await inspect(id)).state;
    const directory = join(engine.config.dataDir, 'containers', id);
    rmSync(directory, { recursive: true });
    await service.kill();
    expect((await inspect(id)).state).toMatchObject({ status: ContainerStatus.RUNNING, pid });
    await client.stopContainer({ name: id, signal: '', timeoutSeconds: 0 }, deadline);
    rmSync(directory, { recursive: true, force: true });
    await start(id);
    expect(readFileSync(join(directory, 'hosts'), 'utf8')).not.toBe('');
    await remove(id);
    expect(engine.leftovers()).toEqual([]);
  });
});
