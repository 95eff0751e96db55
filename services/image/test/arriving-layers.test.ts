import { randomBytes } from 'node:crypto';
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { dockerArchive, gzipLayer, makeImage, plainTar, waitFor } from '@flotilla/testkit';
import type { FixtureImage } from '@flotilla/testkit';
import type { image as proto } from '@flotilla/proto';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { Engine, call, find, load } from './image-under-test.js';

describe('large plain layers of an archive', () => {
  let engine: Engine;
  const large = gzipLayer(
    plainTar([
      ['first', Buffer.from('1')],
      ['random', randomBytes(9_000_000)],
    ]),
  );
  const image = makeImage([large], { Cmd: ['a'] });
  const twice = makeImage([large, large], { Cmd: ['b'] });
  /** A large tar that turns into something else in the middle. */
  const broken = Buffer.concat([large.tar.subarray(0, 2048), randomBytes(9_000_000)]);
  beforeAll(async () => {
    engine = await Engine.start();
  });
  afterAll(() => engine[Symbol.asyncDispose]());
  afterEach(async () => {
    for (const { id } of (await engine.client.listImages({}, call)).images) {
      const request = { name: id, force: true, noPrune: false, platforms: [], runningContainerIds: [] };
      await engine.client.removeImage(request, call);
    }
    // What was removed goes a little later.
    const left = (): string[] => [...readdirSync(layersDir()), ...readdirSync(join(engine.imageDir, 'incoming'))];
    await expect.poll(left, { interval: 5, timeout: 15_000 }).toEqual([]);
  });

  const layersDir = (): string => join(engine.imageDir, 'layers');
  const arriving = (): boolean =>
    readdirSync(layersDir()).some(
      (name) => name.startsWith('.tmp-') && existsSync(join(layersDir(), name, 'diff/first')),
    );
  /** An archive of which the second half is sent when `then` allows it. */
  async function* inHalves(archive: Buffer, then: () => Promise<unknown>): AsyncGenerator<proto.LoadImagesRequest> {
    yield { frame: { $case: 'start', value: { quiet: true, platforms: [], exchangeName: '' } } };
    yield { frame: { $case: 'data', value: archive.subarray(0, archive.length / 2) } };
    await then();
    yield { frame: { $case: 'data', value: archive.subarray(archive.length / 2) } };
  }
  const archiveOf = (images: readonly FixtureImage[], layerBytes: Buffer): Buffer => {
    const items = images.map(({ id, layers }) => ({ Config: id.slice(7), Layers: layers.map(() => 'layer.tar') }));
    return plainTar([
      ['layer.tar', layerBytes],
      ...images.map(({ id, configJson }): [string, Buffer] => [id.slice(7), configJson]),
      ['manifest.json', Buffer.from(JSON.stringify(items))],
    ]);
  };

  it('are unpacked while they come', async () => {
    const requests = inHalves(dockerArchive(image, ['web:1']), () => waitFor(arriving, { what: 'the first file' }));
    for await (const _ of engine.client.loadImages(requests));
    const { lowerDirs, layers } = await find(engine, 'web:1');
    expect(layers).toEqual([large.diffId]);
    expect(readFileSync(join(lowerDirs[0] ?? '', 'random'))).toHaveLength(9_000_000);
    // One that is there needs nothing: it is found by its name or its place.
    const named = plainTar([
      [`${large.diffId.slice(7)}.tar`, large.tar],
      ['c', image.configJson],
      [
        'manifest.json',
        Buffer.from(JSON.stringify([{ Config: 'c', RepoTags: ['x:1'], Layers: [`${large.diffId.slice(7)}.tar`] }])),
      ],
    ]);
    expect(await load(engine, named)).toBe('Loaded image: x:1\n');
  });

  it('may stand in several places of several images', async () => {
    await load(engine, archiveOf([twice, image], large.tar));
    const { lowerDirs } = await find(engine, twice.id);
    expect(lowerDirs).toHaveLength(2);
    for (const directory of lowerDirs) expect(readFileSync(join(directory, 'random'))).toHaveLength(9_000_000);
    expect((await find(engine, image.id)).lowerDirs).toEqual(lowerDirs.slice(1));
  });

  it('are refused only if an image has them, and leave nothing', async () => {
    await expect(load(engine, archiveOf([image], broken))).rejects.toMatchObject({
      message: expect.stringMatching(/^failed to register layer: /) as string,
    });
    await expect(load(engine, archiveOf([image], makeTar('other')))).rejects.toMatchObject({
      message: expect.stringMatching(/layer verification failed/) as string,
    });
    const unused = plainTar([['unused.tar', broken]]).subarray(0, 512 * Math.ceil(1 + broken.length / 512));
    expect(await load(engine, Buffer.concat([unused, dockerArchive(image, ['web:2'])]))).toBe('Loaded image: web:2\n');
  });

  it('leave nothing when the client goes away', async () => {
    const stop = new AbortController();
    const requests = inHalves(dockerArchive(image, ['web:1']), async () => {
      await waitFor(arriving, { what: 'the first file' });
      stop.abort();
    });
    const loading = async (): Promise<void> => {
      for await (const _ of engine.client.loadImages(requests, { signal: stop.signal }));
    };
    await expect(loading()).rejects.toMatchObject({ kind: 'cancelled' });
  });

  const makeTar = (name: string): Buffer => plainTar([[name, randomBytes(9_000_000)]]);
});
