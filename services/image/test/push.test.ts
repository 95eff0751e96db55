import { randomBytes } from 'node:crypto';
import { existsSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { permissionDenied, unavailable } from '@flotilla/errors';
import { dockerArchive, gzipLayer, makeImage, makeTempDir, plainTar, sha256 } from '@flotilla/testkit';
import { startFaultProxy, startRegistry, waitFor } from '@flotilla/testkit';
import type { FixtureImage, Registry, SeenRequest, TempDir } from '@flotilla/testkit';
import { FakeRegistryProxy } from './fake-registry-proxy.js';
import { Engine, call, find, freePort, load, pull, push, statuses } from './image-under-test.js';
import type { Pulled } from './image-under-test.js';

const layer = (name: string, size = 100) => gzipLayer(plainTar([[name, randomBytes(size)]]));
const short = (digest = '') => digest.slice(7, 19);
const host = 'host.test';
const linuxOn = (architecture: string) => ({ os: 'linux', architecture, variant: '', osVersion: '', osFeatures: [] });
const aux = ({ lines }: Pulled) =>
  lines.flatMap(({ auxJson }) => (auxJson === '' ? [] : [JSON.parse(auxJson) as unknown]));
const messageOf = ({ error }: { error?: unknown }) => (error instanceof Error ? error.message : '');

describe('push', () => {
  let fake: FakeRegistryProxy;
  let engine: Engine;
  let image: FixtureImage;
  beforeEach(async () => {
    fake = new FakeRegistryProxy();
    engine = await Engine.startWith((root, socket) => fake.serve(root, socket));
    image = makeImage([layer('a'), layer('b'), layer('c')]);
    fake.hold(`${host}/base`, 'v1', image);
    await pull(engine, `${host}/base`, 'v1');
  });
  afterEach(async () => {
    await engine[Symbol.asyncDispose]();
  });
  const tag = (repository: string, as: string, source = `${host}/base:v1`) =>
    engine.client.tagImage({ name: source, repository, tag: as }, call);
  const links = () => readdirSync(join(engine.root.path, 'exchange'));

  it("says what it does in dockerd's words, and sends what was pulled byte for byte", async () => {
    await tag('other.test/app', 'v1');
    const pushed = await push(engine, 'other.test/app', 'v1');
    expect(pushed.error).toBeUndefined();
    const [a, b, c] = image.layers.map(({ diffId }) => short(diffId));
    expect(statuses(pushed).slice(0, 4)).toEqual([
      'The push refers to repository [other.test/app]',
      `${c}: Preparing`,
      `${b}: Preparing`,
      `${a}: Preparing`,
    ]);
    expect(statuses(pushed).slice(4, 7).sort()).toEqual([a, b, c].map((id) => `${id}: Pushed`).sort());
    const size = image.manifestJson.length;
    expect(statuses(pushed)[7]).toBe(`v1: digest: ${image.manifestDigest} size: ${size}`);
    expect(aux(pushed)).toEqual([{ Tag: 'v1', Digest: image.manifestDigest, Size: size }]);
    expect(fake.manifests.get('other.test/app v1')).toEqual({
      mediaType: image.manifestType,
      content: image.manifestJson,
    });
    expect(fake.done.at(-2)).toBe(`sent other.test/app ${image.id}`);
    expect(fake.done.at(-1)).toBe('manifest other.test/app v1');
    expect((await find(engine, `${host}/base:v1`)).repoDigests).toContain(`other.test/app@${image.manifestDigest}`);
    expect(pushed.revision).toBeGreaterThan(0n);
    expect(links()).toEqual([]);
    const again = await push(engine, 'other.test/app', 'v1');
    expect(statuses(again).filter((line) => line.endsWith('Layer already exists'))).toHaveLength(3);
  });

  it('mounts from where the registry has it, also after that name is gone and the service restarted', async () => {
    await tag(`${host}/mine`, 'v1');
    await engine.client.removeImage(
      { name: `${host}/base:v1`, force: false, noPrune: false, platforms: [], runningContainerIds: [] },
      call,
    );
    await engine.stopImage();
    await engine.startImage();
    const pushed = await push(engine, `${host}/mine`, 'v1');
    expect(statuses(pushed).filter((line) => line.endsWith('Mounted from base'))).toHaveLength(3);
    expect(fake.done.filter((line) => line.startsWith('sent'))).toEqual([`sent ${host}/mine ${image.id}`]);
    expect(fake.requests.find(({ digest }) => digest === image.layers[0]?.digest)?.mountFrom).toEqual([`${host}/base`]);
    await tag('other.test/mine', 'v1', `${host}/mine:v1`);
    await push(engine, 'other.test/mine', 'v1');
    expect(fake.requests.at(-2)?.mountFrom).toEqual([]);
  });

  it('pushes all tags of a repository', async () => {
    const other = makeImage([layer('x')]);
    await load(engine, dockerArchive(other, [`${host}/many:one`]));
    await tag(`${host}/many`, 'two');
    const pushed = await push(engine, `${host}/many`, '');
    expect(statuses(pushed).filter((line) => line.startsWith('The push refers'))).toHaveLength(1);
    expect(aux(pushed)).toMatchObject([{ Tag: 'one' }, { Tag: 'two', Digest: image.manifestDigest }]);
    const one = fake.manifests.get(`${host}/many one`);
    // An image that came without a manifest has one of its own.
    expect(JSON.parse(one?.content.toString() ?? '')).toMatchObject({ schemaVersion: 2, config: { digest: other.id } });
    fake.hold(`${host}/alone`, image.manifestDigest, image);
    await pull(engine, `${host}/alone`, image.manifestDigest);
    expect(messageOf(await push(engine, `${host}/alone`, ''))).toBe(`no tags to push for ${host}/alone`);
  });

  it('refuses in words, after its first line', async () => {
    const refusals = [
      ['nowhere', 'latest', 'An image does not exist locally with the tag: nowhere'],
      [`${host}/base`, 'v9', `tag does not exist: ${host}/base:v9`],
      [`${host}/base`, image.manifestDigest, 'cannot push a digest reference'],
    ] as const;
    for (const [name, which, message] of refusals) {
      const refused = await push(engine, name, which);
      expect(messageOf(refused)).toBe(message);
      expect(statuses(refused)).toHaveLength(1);
    }
    const wrong = await push(engine, `${host}/base`, 'v1', { platform: linuxOn('arm64') });
    expect(messageOf(wrong)).toBe(
      `image with reference ${host}/base:v1 was found but its platform (linux/amd64) does not match the specified platform (linux/arm64)`,
    );
    expect(wrong).toMatchObject({ lines: [], error: { kind: 'notFound' } });
    expect(messageOf(await push(engine, 'BAD', 'v1'))).toContain('must be lowercase');
  });

  it('stops everything when one layer is refused, and leaves nothing', async () => {
    await tag('other.test/app', 'v1');
    let ended = 0;
    fake.beforeBlob = async ({ digest }, signal) => {
      if (digest === image.layers[0]?.digest) {
        await waitFor(() => fake.running.now === 3, { what: 'three uploads' });
        throw permissionDenied('denied: requested access to the resource is denied');
      }
      await delay(60_000, undefined, { signal }).catch(() => undefined);
      ended += 1;
      signal.throwIfAborted();
    };
    const refused = await push(engine, 'other.test/app', 'v1');
    expect(messageOf(refused)).toBe('denied: requested access to the resource is denied');
    await waitFor(() => ended === 2 && links().length === 0, { what: 'the end of the other uploads' });
    expect([...fake.manifests.keys()].filter((key) => key.startsWith('other'))).toEqual([]);
    expect((await find(engine, `${host}/base:v1`)).repoDigests).toEqual([`${host}/base@${image.manifestDigest}`]);
  });

  it('bounds uploads over all pushes and sends a blob that two want once', async () => {
    const wide = makeImage(Array.from({ length: 9 }, (_, at) => layer(`f${at}`)));
    await load(engine, dockerArchive(wide, ['other.test/wide:a', 'other.test/wide:b']));
    let open: () => void = () => undefined;
    const gate = new Promise<void>((resolve) => (open = resolve));
    fake.beforeBlob = () => gate;
    const both = [push(engine, 'other.test/wide', 'a'), push(engine, 'other.test/wide', 'b')];
    await waitFor(() => fake.running.now === 5, { what: 'five uploads' });
    open();
    const [first, second] = await Promise.all(both);
    expect([first?.error, second?.error]).toEqual([undefined, undefined]);
    expect(statuses(first ?? expect.fail()).filter((line) => line.endsWith('Waiting')).length).toBeGreaterThan(0);
    expect(fake.running.most).toBe(5);
    expect(fake.done.filter((line) => line.startsWith('sent'))).toHaveLength(10);
  });

  it('asks again when registry-proxy dies, and cancels when its client goes', async () => {
    await tag('other.test/app', 'v1');
    let deaths = 2;
    fake.beforeBlob = () => (deaths-- > 0 ? Promise.reject(unavailable('gone')) : Promise.resolve());
    expect((await push(engine, 'other.test/app', 'v1')).error).toBeUndefined();
    await tag('other.test/again', 'v1');
    let isCancelled = false;
    fake.beforeBlob = async (_, signal) => {
      await delay(60_000, undefined, { signal }).catch(() => (isCancelled = true));
    };
    const cancel = new AbortController();
    const pushing = push(engine, 'other.test/again', 'v1', {}, cancel.signal);
    await waitFor(() => fake.running.now > 0, { what: 'an upload' });
    cancel.abort();
    await pushing;
    await waitFor(() => isCancelled && links().length === 0, { what: 'the end of the upload' });
  });

  it('pushes an index when all of it is here, else the manifest of the platform', async () => {
    const arm = makeImage([layer('arm')], {}, 'arm64');
    const indexOf = (...images: [FixtureImage, string][]) =>
      Buffer.from(
        JSON.stringify({
          schemaVersion: 2,
          mediaType: 'application/vnd.oci.image.index.v1+json',
          manifests: images.map(([it, architecture]) => ({
            mediaType: it.manifestType,
            digest: it.manifestDigest,
            size: it.manifestJson.length,
            platform: { os: 'linux', architecture },
          })),
        }),
      );
    const mediaType = 'application/vnd.oci.image.index.v1+json';
    const [whole, part] = [indexOf([image, 'amd64']), indexOf([image, 'amd64'], [arm, 'arm64'])];
    fake.hold(`${host}/multi`, 'unused', image);
    fake.manifests.set(`${host}/multi whole`, { mediaType, content: whole });
    fake.manifests.set(`${host}/multi part`, { mediaType, content: part });
    // Another image than the one above: it is not here yet, so its index is kept.
    await engine.client.removeImage(
      { name: image.id, force: true, noPrune: false, platforms: [], runningContainerIds: [] },
      call,
    );
    await pull(engine, `${host}/multi`, 'whole');
    await tag('other.test/whole', 'v1', `${host}/multi:whole`);
    const pushed = await push(engine, 'other.test/whole', 'v1');
    expect(pushed.error).toBeUndefined();
    expect(aux(pushed)).toMatchObject([{ Digest: sha256(whole) }]);
    expect(fake.manifests.get('other.test/whole v1')).toEqual({ mediaType, content: whole });
    expect(fake.manifests.has(`other.test/whole ${image.manifestDigest}`)).toBe(true);
    const one = await push(engine, 'other.test/whole', 'v1', { platform: linuxOn('amd64') });
    expect(aux(one)).toMatchObject([{ Digest: image.manifestDigest }]);
    await engine.client.removeImage(
      { name: image.id, force: true, noPrune: false, platforms: [], runningContainerIds: [] },
      call,
    );
    await pull(engine, `${host}/multi`, 'part');
    await tag('other.test/part', 'v1', `${host}/multi:part`);
    expect(aux(await push(engine, 'other.test/part', 'v1'))).toMatchObject([{ Digest: image.manifestDigest }]);
    fake.hold(`${host}/multi`, 'unused', arm);
    await pull(engine, `${host}/multi`, 'part', { platform: linuxOn('arm64') });
    // Two images under one name: one tag to push.
    expect(aux(await push(engine, `${host}/multi`, 'part'))).toMatchObject([{ Digest: sha256(part) }]);
    const second = await push(engine, `${host}/multi`, 'part', { platform: linuxOn('arm64') });
    expect(aux(second)).toMatchObject([{ Digest: arm.manifestDigest }]);
    await tag('other.test/both', 'v1', arm.id);
    expect(aux(await push(engine, 'other.test/both', 'v1'))).toMatchObject([{ Digest: sha256(part) }]);
  });

  it('tells of content that is gone from the disk, and clears links of a dead service', async () => {
    await tag('other.test/app', 'v1');
    const hex = image.layers[1]?.digest.slice(7) ?? '';
    rmSync(join(engine.imageDir, 'content/sha256', hex.slice(0, 2), hex));
    expect(messageOf(await push(engine, 'other.test/app', 'v1'))).toBe(
      `blob sha256:${hex} is missing from the image store`,
    );
    await engine.stopImage();
    const left = join(engine.root.path, 'exchange', 'push-0');
    writeFileSync(left, 'x');
    await engine.startImage();
    expect(existsSync(left)).toBe(false);
  });
});

describe('push through the real registry-proxy', () => {
  let scratch: TempDir;
  let registry: Registry;
  beforeAll(async () => {
    scratch = await makeTempDir('image-push');
    registry = await startRegistry({ directory: join(scratch.path, 'registry'), port: await freePort() });
  });
  afterAll(async () => {
    await registry[Symbol.asyncDispose]();
    await scratch[Symbol.asyncDispose]();
  });

  it('goes on when it is killed, without sending finished blobs again; and so does an image service', async () => {
    await using faults = await startFaultProxy(registry.address);
    await using engine = await Engine.start();
    const image = makeImage([layer('a', 1000), layer('b', 2000), layer('c', 300_000)]);
    const name = `${faults.address}/killed`;
    await load(engine, dockerArchive(image, [`${name}:v1`, `${faults.address}/again:v1`]));
    const commits = () =>
      faults.seen.filter(({ method, path }: SeenRequest) => method === 'PUT' && path.includes('/blobs/'));
    let isHeld = true;
    faults.decide = ({ method, path }) =>
      isHeld && method === 'PUT' && path.includes('/blobs/') && commits().length > 2 ? { kind: 'hang' } : undefined;
    const pushing = push(engine, name, 'v1');
    await waitFor(() => commits().length === 3, { what: 'two blobs done and one under way' });
    await engine.killProxy();
    isHeld = false;
    await engine.startProxy();
    const pushed = await pushing;
    expect(pushed.error).toBeUndefined();
    // Two finished ones, the one that hung, its second try, the configuration.
    expect(commits()).toHaveLength(5);
    expect(readdirSync(join(engine.root.path, 'exchange'))).toEqual([]);

    await engine.stopImage();
    const child = await engine.startImageProcess();
    isHeld = true;
    faults.decide = ({ method, path }) =>
      isHeld && method === 'PUT' && path.includes('/blobs/') ? { kind: 'hang' } : undefined;
    faults.seen.length = 0;
    // Nothing to mount from there: the bytes must go.
    const fresh = makeImage([layer('d', 1000)]);
    await load(engine, dockerArchive(fresh, [`${faults.address}/again:v2`]));
    const lost = push(engine, `${faults.address}/again`, 'v2');
    await waitFor(() => commits().length > 0, { what: 'an upload' });
    child.kill('SIGKILL');
    await lost;
    isHeld = false;
    await engine.startImage();
    expect(readdirSync(join(engine.root.path, 'exchange')).filter((it) => it.startsWith('push-'))).toEqual([]);
    expect((await push(engine, `${faults.address}/again`, 'v2')).error).toBeUndefined();
  });
});
