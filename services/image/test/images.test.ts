import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { existsSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { dockerArchive, gzipLayer, makeImage, makeTempDir, ociArchive, plainTar } from '@flotilla/testkit';
import type { FixtureImage, TempDir } from '@flotilla/testkit';
import type { image as proto } from '@flotilla/proto';
import { Store } from '@flotilla/store';
import type { Codec } from '@flotilla/store';
import { Engine, call, find, importTar, load } from './image-under-test.js';

let engine: Engine;
let scratch: TempDir;
const containerId = 'c'.repeat(64);
const base = gzipLayer(plainTar([['base', randomBytes(50_000)]]));
const image = makeImage([base, gzipLayer(plainTar([['top', Buffer.from('x')]]))], { Cmd: ['sh'] });
const other = makeImage([base, gzipLayer(plainTar([['other', Buffer.from('y')]]))], { Labels: { kind: 'other' } });

const eventually = <T>(value: () => T) => expect.poll(value, { interval: 5, timeout: 15_000 });

beforeAll(async () => {
  scratch = await makeTempDir('image-archives');
});
afterAll(() => scratch[Symbol.asyncDispose]());
beforeEach(async () => {
  engine = await Engine.start();
});
afterEach(() => engine[Symbol.asyncDispose]());

const layerDirs = () => readdirSync(join(engine.imageDir, 'layers')).filter((name) => !name.startsWith('.'));
const leftovers = () => readdirSync(join(engine.imageDir, 'incoming'));
const tag = (name: string, repository: string, to = '') => engine.client.tagImage({ name, repository, tag: to }, call);
const remove = async (name: string, options: Partial<proto.RemoveImageRequest> = {}) => {
  const request = { name, force: false, noPrune: false, platforms: [], runningContainerIds: [], ...options };
  const { removed } = await engine.client.removeImage(request, call);
  return removed.map(({ what }) => `${what?.$case ?? ''} ${what?.value ?? ''}`);
};
const prepare = (name: string, id = containerId, requestId = `request ${id}`, mountedImages: string[] = []) => {
  const holder = { containerId: id, containerName: 'web' };
  const request = { holder, image: name, platform: undefined, storageOptions: {}, mountedImages };
  return engine.client.prepareContainerLayer(request, { ...call, requestId });
};
const release = (id = containerId) => engine.client.releaseContainerLayer({ containerId: id }, call);
const chainOf = (fixture: FixtureImage) => fixture.layers.map(({ diffId }) => diffId);

describe('load', () => {
  it.each([
    [
      'docker-archive',
      (it: FixtureImage) => dockerArchive(it, ['web:1', 'me/web:2']),
      'Loaded image: web:1\nLoaded image: me/web:2\n',
    ],
    ['gzip', (it: FixtureImage) => gzipSync(dockerArchive(it, ['web:1'])), 'Loaded image: web:1\n'],
    [
      'zstd',
      (it: FixtureImage) => execFileSync('zstd', ['-qc'], { input: dockerArchive(it, ['web:1']) }),
      'Loaded image: web:1\n',
    ],
    ['without a name', (it: FixtureImage) => dockerArchive(it, []), `Loaded image ID: ${image.id}\n`],
    ['OCI layout', (it: FixtureImage) => ociArchive(it, 'docker.io/library/web:1'), 'Loaded image: web:1\n'],
  ])('%s', async (name, archive, text) => {
    expect(await load(engine, archive(image)), name).toBe(text);
    const loaded = await find(engine, image.id);
    expect(loaded.layers).toEqual(chainOf(image));
    expect(readFileSync(join(loaded.lowerDirs[0] ?? '', 'top'), 'utf8')).toBe('x');
    expect(leftovers()).toEqual([]);
    if (name === 'OCI layout') expect(loaded.descriptor?.digest).toBe(image.manifestDigest);
  });

  it('what skopeo writes', async () => {
    const archive = join(scratch.path, 'in.tar');
    writeFileSync(archive, dockerArchive(image, ['web:1']));
    for (const [format, name] of [
      ['oci-archive', 'oci.tar'],
      ['docker-archive', 'docker.tar'],
    ] as const) {
      const path = join(scratch.path, name);
      const target =
        format === 'oci-archive' ? `${format}:${path}:example.org/web:2` : `${format}:${path}:example.org/web:3`;
      execFileSync('skopeo', ['--insecure-policy', 'copy', `docker-archive:${archive}`, target], { stdio: 'pipe' });
      expect(await load(engine, readFileSync(path))).toMatch(/^Loaded image: example.org\/web:[23]\n$/);
    }
    expect((await find(engine, 'example.org/web:2')).layers).toEqual(chainOf(image));
  });

  it('moves a name and says so', async () => {
    await load(engine, dockerArchive(image, ['web:1']));
    expect(await load(engine, dockerArchive(other, ['web:1']))).toBe(
      `The image web:1 already exists, renaming the old one with ID ${image.id} to empty string\nLoaded image: web:1\n`,
    );
    expect((await find(engine, image.id)).repoTags).toEqual([]);
  });

  it.each([
    ['nothing', Buffer.alloc(0), /does not contain a manifest.json/],
    ['no manifest', plainTar([['x', Buffer.from('y')]]), /does not contain a manifest.json/],
    ['text', Buffer.from('hello '.repeat(300)), /invalid archive/],
    ['a cut tar', dockerArchive(image, ['web:1']).subarray(0, 30_000), /invalid archive/],
    ['cut gzip', gzipSync(dockerArchive(image, ['web:1'])).subarray(0, 5_000), /invalid or truncated compressed data/],
    [
      'a missing layer',
      plainTar([
        ['manifest.json', Buffer.from('[{"Config":"c","RepoTags":["a:b"],"Layers":["l"]}]')],
        ['c', image.configJson],
      ]),
      /layers length mismatch: expected 2, got 1/,
    ],
    [
      'a missing config',
      plainTar([['manifest.json', Buffer.from('[{"Config":"../../../etc/passwd","Layers":[]}]')]]),
      /does not contain/,
    ],
    [
      'a bad name',
      plainTar([
        ['manifest.json', Buffer.from('[{"Config":"c","RepoTags":["A:b"],"Layers":[]}]')],
        ['c', image.configJson],
      ]),
      /must be lowercase/,
    ],
    ['wrong content', dockerArchive({ ...image, layers: [base, base] }, ['web:1']), /layer verification failed/],
    ['JSON of another sort', plainTar([['manifest.json', Buffer.from('{}')]]), /images must be a list/],
  ])('refuses %s and leaves nothing', async (_, archive, message) => {
    await expect(load(engine, archive)).rejects.toMatchObject({ message: expect.stringMatching(message) as string });
    expect([layerDirs(), leftovers()]).toEqual([[], []]);
    expect((await engine.client.listImages({}, call)).images).toEqual([]);
  });
});

describe('import', () => {
  it('makes an image of one layer', async () => {
    const changes = [
      'CMD ["sh"]',
      'ENV A=1 B="two words"',
      'EXPOSE 80',
      'LABEL x=y',
      'WORKDIR /srv',
      'USER web',
      'VOLUME /data',
    ];
    const made = await importTar(engine, gzipSync(plainTar([['file', Buffer.from('z')]])), {
      repository: 'imported',
      tag: 'v1',
      message: 'from a tar',
      changes,
    });
    expect(await find(engine, 'imported:v1')).toMatchObject({
      id: made.imageId,
      comment: 'from a tar',
      config: {
        cmd: ['sh'],
        env: ['A=1', 'B=two words'],
        exposedPorts: ['80/tcp'],
        labels: { x: 'y' },
        workingDir: '/srv',
        user: 'web',
        volumes: ['/data'],
      },
    });
  });

  it.each([
    [{ changes: ['RUN x'] }, Buffer.alloc(1024), 'run is not a valid change command'],
    [{ changes: ['ENV x'] }, Buffer.alloc(1024), 'ENV must have two arguments'],
    [
      { repository: 'Bad' },
      Buffer.alloc(1024),
      'invalid reference format: repository name (library/Bad) must be lowercase',
    ],
    [{}, Buffer.from('no tar at all '.repeat(100)), 'failed to register layer'],
  ])('refuses %j', async (start, body, message) => {
    await expect(importTar(engine, body, start)).rejects.toMatchObject({
      message: expect.stringContaining(message) as string,
    });
    expect([layerDirs(), leftovers()]).toEqual([[], []]);
  });
});

describe('tag and remove', () => {
  beforeEach(async () => {
    await load(engine, dockerArchive(image, ['web:1']));
  });

  it('tags', async () => {
    await tag('web:1', 'me/web');
    await tag(image.id.slice(7, 19), 'localhost:5000/web', 'x');
    expect((await find(engine, 'me/web')).repoTags).toEqual(['web:1', 'me/web:latest', 'localhost:5000/web:x']);
    await expect(tag('nope', 'x')).rejects.toMatchObject({ kind: 'notFound', message: 'No such image: nope:latest' });
    await expect(tag('web:1', 'x', 'a b')).rejects.toMatchObject({
      kind: 'invalidArgument',
      message: 'invalid tag format',
    });
    await expect(tag('web:1', 'X')).rejects.toMatchObject({ kind: 'invalidArgument' });
  });

  it('removes names first and the image with the last one', async () => {
    await tag('web:1', 'web', '2');
    expect(await remove('web:1')).toEqual(['untagged web:1']);
    const removed = await remove('web:2');
    expect(removed.slice(0, 2)).toEqual(['untagged web:2', `deleted ${image.id}`]);
    expect(removed).toHaveLength(4);
    await expect(find(engine, image.id)).rejects.toMatchObject({ message: `No such image: ${image.id}` });
    expect(layerDirs()).toEqual([]);
    await expect(remove('web:2')).rejects.toMatchObject({ kind: 'notFound', message: 'No such image: web:2' });
  });

  it('removes by id what has one name, by force what has several', async () => {
    await tag('web:1', 'me/web');
    const id = image.id.slice(7, 19);
    await expect(remove(id)).rejects.toMatchObject({
      kind: 'conflict',
      message: `conflict: unable to delete ${id} (must be forced) - image is referenced in multiple repositories`,
    });
    expect((await remove(id, { force: true })).slice(0, 3).sort()).toEqual(
      ['untagged web:1', 'untagged me/web:latest', `deleted ${image.id}`].sort(),
    );
  });

  it('keeps shared layers', async () => {
    await load(engine, dockerArchive(other, ['other:1']));
    expect(layerDirs()).toHaveLength(3);
    expect(await remove('web:1')).toHaveLength(3);
    expect(layerDirs()).toHaveLength(2);
    expect((await find(engine, 'other:1')).lowerDirs).toHaveLength(2);
  });

  it('refuses while a container uses the image', async () => {
    await prepare('web:1');
    const short = image.id.slice(7, 19);
    const container = containerId.slice(0, 12);
    await expect(remove('web:1')).rejects.toMatchObject({
      kind: 'conflict',
      message: `conflict: unable to remove repository reference "web:1" (must force) - container ${container} is using its referenced image ${short}`,
    });
    await expect(remove(short)).rejects.toMatchObject({
      message: `conflict: unable to delete ${short} (must be forced) - image is being used by stopped container ${container}`,
    });
    await expect(remove(short, { force: true, runningContainerIds: [containerId] })).rejects.toMatchObject({
      message: `conflict: unable to delete ${short} (cannot be forced) - image is being used by running container ${container}`,
    });
    // By force the name goes, and the image itself if the container does not run; its layers stay for the container.
    expect(await remove(short, { force: true })).toEqual(['untagged web:1', `deleted ${image.id}`]);
    expect(layerDirs()).toHaveLength(2);
    const again = await prepare('whatever', containerId, 'another');
    expect(again.lowerDirs).toHaveLength(2);
    await release();
    expect(layerDirs()).toEqual([]);
  });

  it('answers a repeated request with the first answer', async () => {
    const request = { name: 'web:1', force: false, noPrune: false, platforms: [], runningContainerIds: [] };
    const first = await engine.client.removeImage(request, { ...call, requestId: 'same' });
    expect(await engine.client.removeImage(request, { ...call, requestId: 'same' })).toEqual(first);
  });

  it('prunes', async () => {
    await load(engine, dockerArchive(other, []));
    const prune = async (request: Partial<proto.PruneImagesRequest>) => {
      const all = { dangling: true, until: undefined, labels: [], excludedLabels: [], ...request };
      const { removed, reclaimedBytes } = await engine.client.pruneImages(all, call);
      return [removed.length, Number(reclaimedBytes)];
    };
    expect(await prune({ labels: ['kind=none'] })).toEqual([0, 0]);
    expect(await prune({})).toEqual([2, 1]);
    // Not even a tag goes of what a container uses.
    await tag('web:1', 'web', '2');
    await prepare('web:1');
    expect(await prune({ dangling: false })).toEqual([0, 0]);
    expect((await find(engine, 'web:1')).repoTags).toEqual(['web:1', 'web:2']);
    await release();
    await remove('web:2');
    expect(await prune({ dangling: false })).toEqual([4, 50_001]);
    expect(layerDirs()).toEqual([]);
  });

  it('measures', async () => {
    await load(engine, dockerArchive(other, ['other:1']));
    const usage = await engine.client.getImageUsage({}, call);
    expect(usage.layersSizeBytes).toBe(50_002n);
    expect(usage.images.map(({ sizeBytes, sharedSizeBytes }) => [sizeBytes, sharedSizeBytes])).toEqual([
      [50_001n, 50_000n],
      [50_001n, 50_000n],
    ]);
  });
});

describe('container layers', () => {
  beforeEach(async () => {
    await load(engine, dockerArchive(image, ['web:1']));
  });

  it('are made once and found again', async () => {
    const first = await prepare('web:1');
    expect(first.lowerDirs).toHaveLength(2);
    expect(existsSync(first.upperDir) && existsSync(first.workDir)).toBe(true);
    expect(first.image?.config?.cmd).toEqual(['sh']);
    expect((await find(engine, 'web:1')).heldBy).toEqual([{ containerId, containerName: 'web' }]);
    writeFileSync(join(first.upperDir, 'written'), '12345');
    const again = await prepare('web:1', containerId, 'another');
    expect(again.upperDir).toBe(first.upperDir);
    const usage = await engine.client.getContainerLayerUsage({ containerId }, call);
    expect(usage).toEqual({ sizeRwBytes: 5n, sizeRootFsBytes: 50_006n });
    await engine.stopImage();
    await engine.startImage();
    expect(readFileSync(join((await prepare('web:1', containerId, 'third')).upperDir, 'written'), 'utf8')).toBe(
      '12345',
    );
    await release();
    await release();
    expect(existsSync(first.upperDir)).toBe(false);
  });

  it('are refused for unknown images', async () => {
    await expect(prepare('nope')).rejects.toMatchObject({ kind: 'notFound', message: 'No such image: nope:latest' });
    await expect(prepare('a b')).rejects.toMatchObject({
      kind: 'invalidArgument',
      message: 'invalid reference format',
    });
    expect(readdirSync(join(engine.imageDir, 'containers')).filter((name) => !name.startsWith('.'))).toEqual([]);
  });

  it('go when their container is gone, but not at once', async () => {
    await prepare('web:1');
    expect((await engine.client.reconcileHolders({ liveContainerIds: [], revision: 1n }, call)).released).toEqual([]);
    await engine.stopImage();
    await engine.startImage(() => new Date(Date.now() + 60_000));
    expect(
      (await engine.client.reconcileHolders({ liveContainerIds: [containerId], revision: 1n }, call)).released,
    ).toEqual([]);
    expect((await engine.client.reconcileHolders({ liveContainerIds: [], revision: 1n }, call)).released).toEqual([
      containerId,
    ]);
    expect((await find(engine, 'web:1')).heldBy).toEqual([]);
  });

  it('keep the images that the container mounts as its own', async () => {
    await load(engine, dockerArchive(other, ['other:1']));
    const { mountedImages } = await prepare('web:1', containerId, 'one', ['other:1']);
    const [mounted] = mountedImages;
    expect(mounted?.id).toBe(other.id);
    expect(readFileSync(join(mounted?.lowerDirs[0] ?? '', 'other'), 'utf8')).toBe('y');
    expect(readdirSync(mounted?.lowerDirs.at(-1) ?? '')).toEqual([]);
    expect((await find(engine, 'other:1')).heldBy).toEqual([{ containerId, containerName: 'web' }]);
    const short = other.id.slice(7, 19);
    await expect(remove(short)).rejects.toMatchObject({
      message: `conflict: unable to delete ${short} (must be forced) - image is being used by stopped container ${containerId.slice(0, 12)}`,
    });
    // By force its name goes; its layers stay for the container, also over a crash.
    await remove('other:1', { force: true });
    await engine.stopImage();
    await engine.startImage();
    expect((await prepare('web:1', containerId, 'two', ['other:1'])).mountedImages).toEqual(mountedImages);
    expect(readFileSync(join(mounted?.lowerDirs[0] ?? '', 'other'), 'utf8')).toBe('y');
    await release();
    expect(existsSync(mounted?.lowerDirs[0] ?? '')).toBe(false);
    expect(layerDirs()).toHaveLength(2);
  });

  it('stay under a container whose lease is damaged, whatever becomes of the image', async () => {
    const { lowerDirs } = await prepare('web:1');
    await engine.stopImage();
    {
      const raw: Codec<Uint8Array> = { encode: (bytes) => bytes, decode: (bytes) => bytes };
      await using store = await Store.open(join(engine.imageDir, 'db'), { service: 'image', schemaVersion: 1 });
      const leases = store.collection('leases', raw);
      await store.commit((batch) => batch.put(leases, containerId, Buffer.from('{"containerId":')));
    }
    await engine.startImage();
    expect(await remove('web:1', { force: true })).toContain(`deleted ${image.id}`);
    expect(lowerDirs.filter((path) => !existsSync(path))).toEqual([]);
    // Nothing can need them once the container is gone.
    const held = { liveContainerIds: [containerId], revision: 1n };
    expect((await engine.client.reconcileHolders(held, call)).released).toEqual([]);
    const gone = { liveContainerIds: [], revision: 2n };
    expect((await engine.client.reconcileHolders(gone, call)).released).toEqual([containerId]);
    await engine.stopImage();
    await engine.startImage();
    expect(layerDirs()).toEqual([]);
  });

  it('hold nothing when an image to mount is not there', async () => {
    await expect(prepare('web:1', containerId, 'one', ['nowhere'])).rejects.toMatchObject({
      kind: 'notFound',
      message: 'No such image: nowhere:latest',
    });
    expect((await find(engine, 'web:1')).heldBy).toEqual([]);
  });

  it('warn of a foreign platform', async () => {
    const foreign = makeImage([base], {}, 's390x');
    await load(engine, dockerArchive(foreign, ['foreign:1']));
    expect((await prepare('foreign:1')).warnings[0]).toMatch(
      /^The requested image's platform \(linux\/s390x\) does not match the detected host platform \(linux\/.*\) and no specific platform was requested$/,
    );
  });
});

describe('watch', () => {
  it('gives a snapshot and then every change', async () => {
    await load(engine, dockerArchive(image, ['web:1']));
    const stop = new AbortController();
    const seen: string[] = [];
    let last = 0n;
    const watching = (async () => {
      for await (const { revision, change } of engine.client.watchImages({}, { signal: stop.signal })) {
        last = revision;
        if (change?.$case === 'upsert') seen.push(`upsert ${change.value.repoTags.join(' ')}`);
        else seen.push(change?.$case === 'removed' ? `removed ${change.value}` : 'synced');
      }
    })();
    await eventually(() => seen).toEqual(['upsert web:1', 'synced']);
    const { revision } = await tag('web:1', 'web', '2');
    await eventually(() => last).toBe(revision);
    await remove('web:1');
    await remove('web:2');
    await eventually(() => seen.slice(2)).toEqual(['upsert web:1 web:2', 'upsert web:2', `removed ${image.id}`]);
    stop.abort();
    await expect(watching).rejects.toMatchObject({ kind: 'cancelled' });
  });
});
