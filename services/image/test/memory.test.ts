import { createHash, randomBytes } from 'node:crypto';
import { closeSync, createReadStream, createWriteStream, openSync, readFileSync, statSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { gzipSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { image as proto } from '@flotilla/proto';
import { makeImage, makeTempDir, plainTar, sha256, startRegistry } from '@flotilla/testkit';
import type { FixtureImage, FixtureLayer, Registry, TempDir } from '@flotilla/testkit';
import { Engine, call, collect, find, freePort, pull, push } from './image-under-test.js';

const mebibyte = 2 ** 20;
/** Of a layer no more is held than a few pieces of 1 MiB per thread: the rest is Node with this service's code. */
const limitKib = 200 * 1024;
const fileMebibytes = 192;
const containerId = 'c'.repeat(64);

/** What a layer with one large file consists of: pieces, some of them often, so that it is made without holding it. */
interface LargeTar {
  readonly pieces: readonly Buffer[];
  readonly bytes: number;
}

/** `randomMebibytes` of each 64 MiB do not compress. */
function largeTar(mebibytes: number, randomMebibytes: number): LargeTar {
  const piece = Buffer.alloc(64 * mebibyte);
  randomBytes(randomMebibytes * mebibyte).copy(piece);
  const header = tarHeader('large', mebibytes * mebibyte);
  return {
    pieces: [header, ...Array.from({ length: mebibytes / 64 }, () => piece), Buffer.alloc(1024)],
    bytes: mebibytes * mebibyte + 1536,
  };
}

function tarHeader(name: string, bytes: number): Buffer {
  const header = plainTar([[name, Buffer.alloc(0)]]).subarray(0, 512);
  header.write(`${bytes.toString(8).padStart(11, '0')}\0`, 124, 'latin1');
  header.fill(' ', 148, 156);
  const sum = header.reduce((total, byte) => total + byte, 0);
  header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  return header;
}

function largeLayer({ pieces }: LargeTar): FixtureLayer {
  const hash = createHash('sha256');
  for (const each of pieces) hash.update(each);
  // A gzip file may consist of several members.
  const zipped = new Map([...new Set(pieces)].map((each) => [each, gzipSync(each, { level: 1 })]));
  const blob = Buffer.concat(pieces.map((each) => zipped.get(each) ?? each));
  const mediaType = 'application/vnd.docker.image.rootfs.diff.tar.gzip';
  return { diffId: `sha256:${hash.digest('hex')}`, digest: sha256(blob), tar: Buffer.alloc(0), blob, mediaType };
}

describe('the memory of the image service does not grow with a layer', { timeout: 180_000 }, () => {
  let scratch: TempDir;
  let registry: Registry;
  let engine: Engine;
  let tar: LargeTar;
  let image: FixtureImage;
  let name: string;
  beforeAll(async () => {
    scratch = await makeTempDir('image-memory');
    registry = await startRegistry({ directory: join(scratch.path, 'registry'), port: await freePort() });
    engine = await Engine.start();
    await engine.stopImage();
    tar = largeTar(fileMebibytes, 60);
    image = makeImage([largeLayer(tar)]);
    await registry.push(image, 'large', 'latest');
    name = `${registry.address}/large`;
  });
  afterAll(async () => {
    await engine[Symbol.asyncDispose]();
    await registry[Symbol.asyncDispose]();
    await scratch[Symbol.asyncDispose]();
  });

  /** Peak of the resident memory of a service that does this and nothing else, in KiB. */
  const peakOf = async (work: () => Promise<unknown>): Promise<number> => {
    const child = await engine.startImageProcess();
    try {
      await work();
      return Number(/^VmHWM:\s+(\d+) kB/m.exec(readFileSync(`/proc/${child.pid}/status`, 'utf8'))?.[1]);
    } finally {
      engine.client.close();
      child.kill('SIGKILL');
    }
  };
  async function* loadFrames(path: string): AsyncGenerator<proto.LoadImagesRequest> {
    yield { frame: { $case: 'start', value: { quiet: true, platforms: [], exchangeName: '' } } };
    for await (const chunk of createReadStream(path, { highWaterMark: 256 * 1024 })) {
      yield { frame: { $case: 'data', value: chunk as Buffer } };
    }
  }
  const remove = (reference: string) => {
    const rules = { force: true, noPrune: false, platforms: [], runningContainerIds: [] };
    return engine.client.removeImage({ name: reference, ...rules }, call);
  };
  const load = (path: string) => collect(engine.client.loadImages(loadFrames(path)));

  it('pull', async () => {
    const sparse = makeImage([largeLayer(largeTar(1024, 1))]);
    await registry.push(sparse, 'sparse', 'latest');
    const peak = await peakOf(async () => {
      await pull(engine, `${registry.address}/sparse`);
      const [lower = ''] = (await find(engine, `${registry.address}/sparse`)).lowerDirs;
      expect(statSync(join(lower, 'large')).size).toBe(1024 * mebibyte);
      await remove(`${registry.address}/sparse`);
    });
    expect(peak).toBeLessThan(limitKib);
    expect(await peakOf(() => pull(engine, name))).toBeLessThan(limitKib);
  });

  it('save', async () => {
    const path = join(scratch.path, 'saved.tar');
    async function* archive(): AsyncGenerator<Uint8Array> {
      for await (const { data } of engine.client.saveImages({
        names: [`${name}:latest`],
        platforms: [],
        exchangeName: '',
      }))
        yield data;
    }
    const peak = await peakOf(() => pipeline(Readable.from(archive()), createWriteStream(path)));
    expect(statSync(path).size).toBeGreaterThan(170 * mebibyte);
    expect(peak).toBeLessThan(limitKib);
  });

  it('push', async () => {
    const other = `${registry.address}/pushed`;
    const peak = await peakOf(async () => {
      await engine.client.tagImage({ name: `${name}:latest`, repository: other, tag: 'latest' }, call);
      expect((await push(engine, other)).error).toBeUndefined();
    });
    expect(peak).toBeLessThan(limitKib);
  });

  it('load, of compressed and of plain layers', async () => {
    const ofBlobs = await peakOf(async () => {
      await remove(`${name}:latest`);
      await remove(`${registry.address}/pushed:latest`);
      await load(join(scratch.path, 'saved.tar'));
      expect((await find(engine, name)).id).toBe(image.id);
      await remove(`${name}:latest`);
    });
    expect(ofBlobs).toBeLessThan(limitKib);

    const path = join(scratch.path, 'plain.tar');
    const manifest = [{ Config: 'config.json', RepoTags: ['plain:1'], Layers: ['layer.tar'] }];
    const rest = plainTar([
      ['config.json', image.configJson],
      ['manifest.json', Buffer.from(JSON.stringify(manifest))],
    ]);
    const fd = openSync(path, 'w');
    for (const each of [tarHeader('layer.tar', tar.bytes), ...tar.pieces, rest]) writeSync(fd, each);
    closeSync(fd);
    const ofTar = await peakOf(async () => {
      await load(path);
      expect((await find(engine, 'plain:1')).id).toBe(image.id);
    });
    expect(ofTar).toBeLessThan(limitKib);
  });

  it('commit', async () => {
    const peak = await peakOf(async () => {
      const holder = { containerId, containerName: 'web' };
      const { upperDir } = await engine.client.prepareContainerLayer(
        { holder, image: 'plain:1', platform: undefined, storageOptions: {}, mountedImages: [] },
        { ...call, requestId: 'prepare' },
      );
      const fd = openSync(join(upperDir, 'written'), 'w');
      for (const each of tar.pieces) writeSync(fd, each);
      closeSync(fd);
      const request = { containerId, repository: 'made', tag: '1', comment: '', author: '', changes: [] };
      await engine.client.commitContainer(
        { ...request, config: undefined, containerConfig: undefined },
        { ...call, deadlineMs: 60_000 },
      );
      expect((await find(engine, 'made:1')).layers).toHaveLength(2);
    });
    expect(peak).toBeLessThan(limitKib);
  });
});
