import { randomBytes } from 'node:crypto';
import { mkdirSync, readFileSync, readdirSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { dockerArchive, gzipLayer, imageStoreFaults, makeImage, ociArchive, plainTar } from '@flotilla/testkit';
import { image as proto } from '@flotilla/proto';
import { Engine, call, find, load } from './image-under-test.js';

const image = makeImage(
  [gzipLayer(plainTar([['base', randomBytes(50_000)]])), gzipLayer(plainTar([['top', Buffer.from('x')]]))],
  { Cmd: ['sh'] },
);
const archive = ociArchive(image, 'docker.io/library/web:1');
const [base, top] = image.layers.map(({ digest }) => digest) as [string, string];
const containerId = 'c'.repeat(64);
const { StoreFindingKind: Kind } = proto;
const kindNames = new Map(Object.entries(Kind).map(([name, value]) => [value as number, name]));

let engine: Engine;
beforeEach(async () => {
  engine = await Engine.start();
  await load(engine, archive);
});
afterEach(() => engine[Symbol.asyncDispose]());

const inStore = (...parts: string[]): string => join(engine.imageDir, ...parts);
const blobFile = (digest: string): string => inStore('content', 'sha256', digest.slice(7, 9), digest.slice(7));
const layerDir = (chainId: string): string => inStore('layers', chainId.slice(7));
const lowest = (): string => image.layers[0]?.diffId ?? '';

async function check(repair = false): Promise<string[]> {
  const found: string[] = [];
  for await (const { event } of engine.client.checkStore({ repair, idle: true })) {
    if (event?.$case !== 'finding') continue;
    const { kind, subject, repaired } = event.value;
    found.push(`${kindNames.get(kind) ?? ''} ${subject}${repaired ? ' repaired' : ''}`);
  }
  return found;
}

const prepare = () =>
  engine.client.prepareContainerLayer(
    {
      holder: { containerId, containerName: 'web' },
      image: 'web:1',
      platform: undefined,
      storageOptions: {},
      mountedImages: [],
    },
    { ...call, requestId: 'prepare' },
  );

describe('the check of the store', () => {
  it('finds nothing in a store that is whole, whatever was done before', async () => {
    await load(engine, dockerArchive(image, ['other:1']));
    await prepare();
    expect(await check()).toEqual([]);
    await engine.client.releaseContainerLayer({ containerId }, call);
    await engine.client.removeImage(
      { name: image.id, force: true, noPrune: false, platforms: [], runningContainerIds: [] },
      call,
    );
    expect(await check()).toEqual([]);
    expect(await imageStoreFaults(engine.client)).toEqual([]);
  });

  it('puts a corrupt blob aside and takes it again from the next load', async () => {
    writeFileSync(blobFile(base), randomBytes(readFileSync(blobFile(base)).length));
    truncateSync(blobFile(top), 10);
    const corrupt = [`BLOB_CORRUPT ${base}`, `BLOB_CORRUPT ${top}`].sort();
    expect((await check()).sort()).toEqual(corrupt);
    expect((await check(true)).sort()).toEqual(corrupt);
    expect(readdirSync(inStore('quarantine')).sort()).toEqual([base, top].map((it) => it.replace(':', '-')).sort());
    expect(await imageStoreFaults(engine.client)).toEqual(
      [base, top].map((it) => expect.stringMatching(`^the blob is missing .*${it}`) as string),
    );
    await load(engine, archive);
    expect(await check()).toEqual([]);
    expect(readdirSync(inStore('quarantine'))).toEqual([]);
  });

  it('writes a lost configuration anew and tells of a lost manifest', async () => {
    rmSync(blobFile(image.id));
    rmSync(blobFile(image.manifestDigest));
    expect((await check(true)).sort()).toEqual(
      [`BLOB_MISSING ${image.id} repaired`, `BLOB_MISSING ${image.manifestDigest}`].sort(),
    );
    expect(readFileSync(blobFile(image.id))).toEqual(image.configJson);
    await load(engine, archive);
    expect(await check()).toEqual([]);
  });

  it('unpacks lost layers again, but not from a corrupt blob', async () => {
    rmSync(layerDir(lowest()), { recursive: true });
    expect(await check()).toEqual([`LAYER_MISSING ${lowest()}`]);
    expect(await check(true)).toEqual([`LAYER_MISSING ${lowest()} repaired`]);
    const { lowerDirs } = await find(engine, 'web:1');
    expect(readFileSync(join(lowerDirs.at(-1) ?? '', 'base'))).toHaveLength(50_000);
    expect(await check()).toEqual([]);
    rmSync(layerDir(lowest()), { recursive: true });
    rmSync(blobFile(base));
    expect(await check(true)).toEqual([`BLOB_MISSING ${base}`, `LAYER_MISSING ${lowest()}`]);
    await load(engine, archive);
    expect(await check()).toEqual([]);
  });

  it('has unpacked again at its start what containers need, and soon the rest', async () => {
    const { lowerDirs } = await prepare();
    await engine.stopImage();
    for (const directory of lowerDirs) rmSync(join(directory, '..'), { recursive: true });
    await engine.startImage();
    expect(readFileSync(join(lowerDirs.at(-1) ?? '', 'base'))).toHaveLength(50_000);
    expect(await check()).toEqual([]);
    await engine.client.releaseContainerLayer({ containerId }, call);
    await engine.stopImage();
    rmSync(layerDir(lowest()), { recursive: true });
    await engine.startImage();
    expect(await check()).toEqual([]);
  });

  it('writes the record of a layer anew', async () => {
    writeFileSync(join(layerDir(lowest()), 'layer.json'), '{"diffId":');
    expect(await check(true)).toEqual([`LAYER_RECORD ${lowest()} repaired`]);
    await engine.stopImage();
    await engine.startImage();
    expect(await check()).toEqual([]);
  });

  it('removes what nobody needs', async () => {
    const left = [
      inStore('content', 'sha256', 'ab', 'c'),
      inStore('layers', 'd'.repeat(64)),
      inStore('incoming', 'upload'),
      inStore('layers', '.tmp-0'),
      inStore('containers', 'e'.repeat(64)),
    ];
    for (const path of left) mkdirSync(path, { recursive: true });
    rmSync(inStore('content', 'sha256', 'ab', 'c'), { recursive: true });
    writeFileSync(inStore('content', 'sha256', 'ab', 'c'), 'stray');
    expect(await check()).toHaveLength(5);
    expect(await check(true)).toHaveLength(5);
    expect(await check()).toEqual([]);
    expect((await find(engine, 'web:1')).lowerDirs).toHaveLength(2);
  });

  it('gives a container whose layer is lost an empty one', async () => {
    const { upperDir } = await prepare();
    rmSync(inStore('containers', containerId), { recursive: true });
    expect(await check(true)).toEqual([`CONTAINER_LAYER_MISSING ${containerId} repaired`]);
    expect(readdirSync(upperDir)).toEqual([]);
    expect(await check()).toEqual([]);
  });

  it('does not mistake work under way for what was left behind', async () => {
    const others = Array.from({ length: 6 }, (_, at) =>
      makeImage([gzipLayer(plainTar([[`file${at}`, randomBytes(300_000)]]))]),
    );
    const state = { isLoading: true };
    const loads = Promise.all(others.map((it, at) => load(engine, dockerArchive(it, [`other:${at}`])))).then(() => {
      state.isLoading = false;
    });
    do {
      for await (const { event } of engine.client.checkStore({ repair: true, idle: false })) {
        if (event?.$case === 'finding') throw new Error(event.value.message);
      }
    } while (state.isLoading);
    await loads;
    expect(await check()).toEqual([]);
  });
});
