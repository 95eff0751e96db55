import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  dockerArchive,
  gzipLayer,
  imageStoreFaults,
  indexEntry,
  makeImage,
  makeIndex,
  makeTempDir,
  plainTar,
  sha256,
  startRegistry,
} from '@flotilla/testkit';
import type { FixtureImage, Registry, TempDir } from '@flotilla/testkit';
import { image as proto } from '@flotilla/proto';
import { hostPlatform } from '@flotilla/oci';
import { Engine, call, freePort, load, pull, statuses } from './image-under-test.js';

let scratch: TempDir;
let registry: Registry;
let engine: Engine;
const host = hostPlatform().architecture;
const foreign = host === 's390x' ? 'ppc64le' : 's390x';

const imageFor = (architecture: string, content: string): FixtureImage =>
  makeImage([gzipLayer(plainTar([[`${architecture}-${content}`, Buffer.from(content)]]))], {}, architecture);
const platform = (architecture: string, variant = '') => ({
  os: 'linux',
  architecture,
  variant,
  osVersion: '',
  osFeatures: [],
});
const find = async (name: string, architecture?: string, variant?: string): Promise<proto.Image> => {
  const request = { name, platform: architecture === undefined ? undefined : platform(architecture, variant) };
  const { image } = await engine.client.getImage(request, call);
  if (image === undefined) throw new Error('no image in the answer');
  return image;
};
const remove = async (name: string, options: Partial<proto.RemoveImageRequest> = {}): Promise<string[]> => {
  const request = { name, force: false, noPrune: false, platforms: [], runningContainerIds: [], ...options };
  const { removed } = await engine.client.removeImage(request, call);
  return removed.map(({ what }) => `${what?.$case ?? ''} ${what?.value ?? ''}`);
};
const ids = async (): Promise<string[]> => (await engine.client.listImages({}, call)).images.map(({ id }) => id).sort();
const manifestsOf = async (id: string): Promise<proto.ManifestSummary[]> => {
  for await (const { manifests } of engine.client.listImageManifests({ imageIds: [id] })) return manifests;
  throw new Error(`nothing of ${id}`);
};

/** The images under tags of their own, then an index of them under `tag`; gives the name without the tag. */
async function pushIndex(repository: string, tag: string, images: readonly (readonly [FixtureImage, string])[]) {
  for (const [image, of] of images) await registry.push(image, repository, of.replaceAll('/', '-'));
  const index = makeIndex(images.map(([image, of]) => indexEntry(image, of)));
  registry.pushManifest(repository, tag, index);
  return { name: `${registry.address}/${repository}`, digest: index.digest };
}

beforeAll(async () => {
  scratch = await makeTempDir('image-platforms');
  registry = await startRegistry({ directory: join(scratch.path, 'registry'), port: await freePort() });
  engine = await Engine.start();
});
afterAll(async () => {
  await engine[Symbol.asyncDispose]();
  await registry[Symbol.asyncDispose]();
  await scratch[Symbol.asyncDispose]();
});

describe('images of several platforms under one name', () => {
  it('stay beside each other, each found by its platform, through removal of all', async () => {
    const [own, other] = [imageFor(host, 'one'), imageFor(foreign, 'one')];
    const { name, digest } = await pushIndex('both', 'latest', [
      [own, `linux/${host}`],
      [other, `linux/${foreign}`],
    ]);
    // The foreign one alone is what the name means.
    await pull(engine, name, 'latest', { platform: platform(foreign) });
    expect(await find(name)).toMatchObject({ id: other.id, secondaryNames: [] });
    expect(statuses(await pull(engine, name)).at(-1)).toBe(`Status: Downloaded newer image for ${name}:latest`);
    const names = { repoTags: [`${name}:latest`], repoDigests: [`${name}@${digest}`] };
    expect(await find(name)).toMatchObject({ id: own.id, ...names, secondaryNames: [] });
    expect(await find(name, foreign)).toMatchObject({
      id: other.id,
      ...names,
      secondaryNames: [`${name}:latest`, `${name}@${digest}`],
    });
    expect(await find(`${name}@${digest}`, foreign)).toMatchObject({ id: other.id });
    await expect(find(name, 'riscv64')).rejects.toMatchObject({
      kind: 'notFound',
      message: `image with reference ${name} was found but its platform (linux/${host}) does not match the specified platform (linux/riscv64)`,
    });
    // Nothing moves when one is pulled again, and everything survives a restart.
    expect(statuses(await pull(engine, name, 'latest', { platform: platform(foreign) })).at(-1)).toBe(
      `Status: Image is up to date for ${name}:latest`,
    );
    await engine.stopImage();
    await engine.startImage();
    expect([(await find(name)).id, (await find(name, foreign)).id]).toEqual([own.id, other.id]);
    // A container of the other one, a tag for both.
    const prepared = await engine.client.prepareContainerLayer(
      {
        holder: { containerId: 'a'.repeat(64), containerName: 'x' },
        image: name,
        platform: platform(foreign),
        storageOptions: {},
        mountedImages: [],
      },
      call,
    );
    expect([prepared.image?.id, prepared.warnings]).toEqual([other.id, []]);
    await engine.client.releaseContainerLayer({ containerId: 'a'.repeat(64) }, call);
    await engine.client.tagImage({ name, repository: 'mine', tag: '' }, call);
    expect((await find('mine', foreign)).id).toBe(other.id);
    expect(await remove('mine')).toEqual(['untagged mine:latest']);
    const prune = { dangling: true, until: undefined, labels: [], excludedLabels: [] };
    expect((await engine.client.pruneImages(prune, call)).removed).toEqual([]);

    expect((await remove(name)).sort()).toEqual(
      [
        `untagged ${name}:latest`,
        `untagged ${name}@${digest}`,
        `deleted ${own.id}`,
        `deleted ${other.id}`,
        `deleted ${own.layers[0]?.diffId ?? ''}`,
        `deleted ${other.layers[0]?.diffId ?? ''}`,
      ].sort(),
    );
    expect(await ids()).toEqual([]);
    expect(await imageStoreFaults(engine.client)).toEqual([]);
  });

  it('are removed one by one by platform or by id', async () => {
    const [own, other] = [imageFor(host, 'two'), imageFor(foreign, 'two')];
    const { name } = await pushIndex('single', 'latest', [
      [own, `linux/${host}`],
      [other, `linux/${foreign}`],
    ]);
    await pull(engine, name);
    await pull(engine, name, 'latest', { platform: platform(foreign) });
    expect(await remove(name, { platforms: [platform(foreign)] })).toContain(`deleted ${other.id}`);
    expect([await ids(), (await find(name)).id]).toEqual([[own.id], own.id]);
    await pull(engine, name, 'latest', { platform: platform(foreign) });
    expect(await remove(own.id)).toContain(`deleted ${own.id}`);
    expect([await ids(), (await find(name)).id]).toEqual([[other.id], other.id]);
    await remove(name);
    expect(await ids()).toEqual([]);
  });

  it('follow an index that was replaced: what it offers still stays, the rest loses the tag', async () => {
    const [own, newer, kept, dropped] = [
      imageFor(host, 'old'),
      imageFor(host, 'new'),
      imageFor(foreign, 'kept'),
      imageFor('riscv64', 'old'),
    ];
    const first = await pushIndex('moving', 'latest', [
      [own, `linux/${host}`],
      [kept, `linux/${foreign}`],
      [dropped, 'linux/riscv64'],
    ]);
    const { name } = first;
    for (const architecture of [host, foreign, 'riscv64']) {
      await pull(engine, name, 'latest', { platform: platform(architecture) });
    }
    const second = await pushIndex('moving', 'latest', [
      [newer, `linux/${host}`],
      [kept, `linux/${foreign}`],
    ]);
    await pull(engine, name);
    expect((await find(name)).id).toBe(newer.id);
    expect(await find(name, foreign)).toMatchObject({ id: kept.id, descriptor: { digest: second.digest } });
    for (const id of [own.id, dropped.id]) {
      expect(await find(id)).toMatchObject({ repoTags: [], repoDigests: [`${name}@${first.digest}`] });
    }
    expect(await imageStoreFaults(engine.client)).toEqual([]);
    // Loading a single image under the name takes it away from all of them.
    await load(engine, dockerArchive(own, [`${name}:latest`]));
    expect([(await find(name)).id, (await find(kept.id)).repoTags]).toEqual([own.id, []]);
    const prune = { dangling: false, until: undefined, labels: [], excludedLabels: [] };
    await engine.client.pruneImages(prune, call);
    expect(await ids()).toEqual([]);
  });

  it('fall back to variants that run, skip attestations, and follow an index inside an index', async () => {
    const [v6, v7, v8] = ['v6', 'v7', 'v8'].map((variant) => imageFor('arm', variant)) as [
      FixtureImage,
      FixtureImage,
      FixtureImage,
    ];
    const statement = Buffer.from('{}');
    const attestation = makeImage([gzipLayer(plainTar([['statement', statement]]))], {}, 'unknown');
    for (const [at, image] of [v6, v7, v8, attestation].entries()) await registry.push(image, 'variants', `v${at}`);
    const inner = makeIndex([
      { ...indexEntry(attestation, 'unknown/unknown') },
      indexEntry(v6, 'linux/arm/v6'),
      indexEntry(v7, 'linux/arm/v7'),
    ]);
    registry.pushManifest('variants', inner.digest, inner);
    const outer = makeIndex([
      { mediaType: inner.mediaType, digest: inner.digest, size: inner.json.length },
      {
        ...indexEntry(attestation, 'unknown/unknown'),
        annotations: {
          'vnd.docker.reference.type': 'attestation-manifest',
          'vnd.docker.reference.digest': v8.manifestDigest,
        },
      },
      indexEntry(v8, 'linux/arm/v8'),
    ]);
    registry.pushManifest('variants', 'latest', outer);
    registry.pushManifest('variants', 'inner', inner);
    const name = `${registry.address}/variants`;
    await pull(engine, name, 'latest', { platform: platform('arm', 'v7') });
    expect(await ids()).toEqual([v7.id]);
    await pull(engine, name, 'inner', { platform: platform('arm', 'v8') });
    expect(await ids()).toEqual([v7.id]);
    await pull(engine, name, 'inner', { platform: platform('arm', 'v6') });
    expect(await ids()).toEqual([v6.id, v7.id].sort());
    await expect(pull(engine, name, 'inner', { platform: platform('arm', 'v5') })).rejects.toMatchObject({
      message: 'no matching manifest for linux/arm/v5 in the manifest list entries',
    });
    await pull(engine, name, 'latest', { platform: platform('arm', 'v8') });
    expect(await ids()).toEqual([v6.id, v7.id, v8.id].sort());

    const { IMAGE, ATTESTATION, UNKNOWN } = proto.ManifestKind;
    const shown = (await manifestsOf(v8.id)).map(({ kind, available, descriptor }) => [
      kind,
      available,
      descriptor?.digest,
    ]);
    expect(shown).toEqual([
      [UNKNOWN, false, inner.digest],
      [ATTESTATION, false, attestation.manifestDigest],
      [IMAGE, true, v8.manifestDigest],
    ]);
    for (const id of await ids()) await remove(id, { force: true });
  });

  it('tell of the manifests that are here and of those that are not', async () => {
    const [own, other] = [imageFor(host, 'three'), imageFor(foreign, 'three')];
    const { name } = await pushIndex('told', 'latest', [
      [own, `linux/${host}`],
      [other, `linux/${foreign}`],
    ]);
    await pull(engine, name);
    const contentBytes = [own.manifestJson, own.configJson, ...own.layers.map(({ blob }) => blob)].reduce(
      (sum, bytes) => sum + bytes.length,
      0,
    );
    expect(await manifestsOf(own.id)).toMatchObject([
      {
        descriptor: { digest: own.manifestDigest, platform: { os: 'linux', architecture: host } },
        available: true,
        contentBytes: BigInt(contentBytes),
        unpackedBytes: 5n,
      },
      { descriptor: { digest: other.manifestDigest }, available: false, contentBytes: 0n, unpackedBytes: 0n },
    ]);
    // One that came without an index has the one manifest that it came with.
    const single = imageFor(host, 'four');
    await load(engine, dockerArchive(single, ['single:1']));
    const [manifest, ...more] = await manifestsOf(single.id);
    expect([manifest?.available, manifest?.descriptor?.platform?.architecture, more]).toEqual([true, host, []]);
    expect(manifest?.descriptor?.digest).not.toBe(sha256(single.configJson));
    for (const id of await ids()) await remove(id, { force: true });
  });
});
