import { once } from 'node:events';
import { lstatSync, mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import {
  dockerArchive,
  gzipLayer,
  imageStoreFaults,
  makeImage,
  makeTempDir,
  plainTar,
  waitFor,
} from '@flotilla/testkit';
import { image as proto } from '@flotilla/proto';
import { mountOverlay, umountAll } from '@flotilla/sys';
import { chooseStorageDriver } from '../src/layers/index.js';
import { Engine, call, find, load } from './image-under-test.js';

const containerId = 'c'.repeat(64);
const other = 'd'.repeat(64);
const kinds: Record<number, string> = {
  [proto.ChangeKind.MODIFIED]: 'modified',
  [proto.ChangeKind.ADDED]: 'added',
  [proto.ChangeKind.DELETED]: 'deleted',
};
const image = makeImage([
  gzipLayer(
    plainTar([
      ['etc/passwd', Buffer.from('root')],
      ['gone', Buffer.from('x')],
      ['sys/only', Buffer.of(1)],
    ]),
  ),
  gzipLayer(
    plainTar([
      ['.wh.gone', Buffer.alloc(0)],
      ['top', Buffer.from('top')],
    ]),
  ),
]);
let engine: Engine;
let requests = 0;

beforeAll(async () => {
  engine = await Engine.start();
  await load(engine, dockerArchive(image, ['web:1']));
  await restart('vfs');
});
afterEach(async () => {
  for (const id of [containerId, other]) await engine.client.releaseContainerLayer({ containerId: id }, call);
  await waitFor(() => containers().length === 0, { what: 'the containers to go' });
});
afterAll(() => engine[Symbol.asyncDispose]());

const restart = async (driver: Engine['storageDriver']) => {
  await engine.stopImage();
  engine.storageDriver = driver;
  await engine.startImage();
};

const prepare = (id = containerId, name = 'web:1') =>
  engine.client.prepareContainerLayer(
    {
      holder: { containerId: id, containerName: 'web' },
      image: name,
      platform: undefined,
      storageOptions: {},
      mountedImages: [],
    },
    { ...call, requestId: `request ${++requests}` },
  );
const containers = () => readdirSync(join(engine.imageDir, 'containers'));
const changes = async (id = containerId) => {
  const found: string[] = [];
  for await (const message of engine.client.listContainerChanges({ containerId: id }, call)) {
    found.push(...message.changes.map(({ path, kind }) => `${kinds[kind]} ${path}`));
  }
  return found;
};

describe('with vfs', () => {
  it('a container has a copy of its layers, and what it changes is told, measured and committed', async () => {
    const { driver, lowerDirs, upperDir, workDir } = await prepare();
    expect({ driver, lowerDirs, workDir }).toEqual({ driver: 'vfs', lowerDirs: [], workDir: '' });
    expect(readdirSync(upperDir).sort()).toEqual(['etc', 'sys', 'top']);
    expect(lstatSync(upperDir).mode & 0o7777).toBe(0o755);
    // Mount points as the engine makes them are no change.
    writeFileSync(join(upperDir, 'etc/hosts'), '');
    expect(await changes()).toEqual([]);
    expect(await engine.client.getContainerLayerUsage({ containerId }, call)).toEqual({
      sizeRwBytes: 0n,
      sizeRootFsBytes: 9n,
    });
    // A second call, also after a restart, finds what was written.
    writeFileSync(join(upperDir, 'new'), '12345');
    rmSync(join(upperDir, 'top'));
    rmSync(join(upperDir, 'sys/only'));
    await restart('vfs');
    expect((await prepare()).upperDir).toBe(upperDir);
    expect(await changes()).toEqual(['added /new', 'modified /sys', 'deleted /sys/only', 'deleted /top']);
    expect((await engine.client.getContainerLayerUsage({ containerId }, call)).sizeRwBytes).toBe(5n);
    const request = { containerId, repository: 'made', tag: '1', comment: '', author: '', changes: [] };
    await engine.client.commitContainer({ ...request, config: undefined, containerConfig: undefined }, call);
    expect((await find(engine, 'made:1')).layers).toHaveLength(3);
    const second = await prepare(other, 'made:1');
    expect(readdirSync(second.upperDir).sort()).toEqual(['etc', 'new', 'sys']);
    expect(readdirSync(join(second.upperDir, 'sys'))).toEqual([]);
    expect(await imageStoreFaults(engine.client)).toEqual([]);
  });

  it('containers keep the driver that they were made with', async () => {
    const copied = await prepare();
    await restart('overlay2');
    const layered = await prepare(other);
    expect(layered).toMatchObject({ driver: 'overlay2', lowerDirs: [expect.anything(), expect.anything()] });
    expect(await prepare()).toMatchObject({ driver: 'vfs', upperDir: copied.upperDir });
    expect(await changes()).toEqual([]);
    expect(await changes(other)).toEqual([]);
    await restart('vfs');
    expect((await prepare(other)).lowerDirs).toHaveLength(2);
    expect(containers().sort()).toEqual([containerId, other]);
  });

  it('a service killed while it copies leaves no half copy behind', async () => {
    const many = Array.from({ length: 2000 }, (_, at): [string, Buffer] => [`f${at}`, Buffer.of(1)]);
    await load(engine, dockerArchive(makeImage([gzipLayer(plainTar(many))]), ['many:1']));
    await engine.stopImage();
    const child = await engine.startImageProcess();
    const asked = prepare(containerId, 'many:1').catch(() => undefined);
    await waitFor(() => containers().length > 0, { what: 'a copy that is under way', intervalMs: 1 });
    const ended = once(child, 'exit');
    child.kill('SIGKILL');
    await ended;
    await asked;
    engine.client.close();
    // As an end at the worst moment leaves it, wherever this one came.
    mkdirSync(join(engine.imageDir, 'containers/.tmp-half/tree'), { recursive: true });
    await engine.startImage();
    await waitFor(() => containers().every((name) => name === containerId), { what: 'the half copy to go' });
    expect(await imageStoreFaults(engine.client)).toEqual([]);
    expect(readdirSync((await prepare(containerId, 'many:1')).upperDir)).toHaveLength(2000);
  });
});

describe('the storage driver', () => {
  const refuse = (): never => {
    throw new Error('filesystem not supported as upperdir');
  };

  it('is vfs where no overlay can be, with a warning; overlay2 is refused there', async () => {
    await using directory = await makeTempDir('storage-driver');
    expect(await chooseStorageDriver(undefined, directory.path)).toEqual({ driver: 'overlay2', warning: undefined });
    const fallback = await chooseStorageDriver(undefined, directory.path, refuse);
    expect(fallback.driver).toBe('vfs');
    expect(fallback.warning).toMatch(/storage driver vfs.*filesystem not supported as upperdir$/);
    await expect(chooseStorageDriver('overlay2', directory.path, refuse)).rejects.toMatchObject({
      kind: 'internal',
      message: 'driver not supported: overlay2: filesystem not supported as upperdir',
    });
    expect(await chooseStorageDriver('vfs', directory.path, refuse)).toEqual({ driver: 'vfs', warning: undefined });
    expect(readdirSync(directory.path)).toEqual([]);
  });

  it('is found by trying: an overlay does not lie on another', async () => {
    await using directory = await makeTempDir('storage-driver');
    const [lower, upper, work, target] = ['lower', 'upper', 'work', 'target'].map((name) => join(directory.path, name));
    for (const path of [lower, upper, work, target]) mkdirSync(path ?? '');
    mountOverlay({ lower: [lower ?? ''], upper: upper ?? '', work: work ?? '', target: target ?? '' });
    try {
      expect((await chooseStorageDriver(undefined, target ?? '')).driver).toBe('vfs');
      expect(readdirSync(target ?? '')).toEqual([]);
    } finally {
      umountAll(target ?? '');
    }
  });
});
