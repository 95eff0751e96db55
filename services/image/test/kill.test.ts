import { randomBytes } from 'node:crypto';
import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { expect, it } from 'vitest';
import {
  dockerArchive,
  gzipLayer,
  imageStoreFaults,
  makeImage,
  makeTempDir,
  plainTar,
  startFaultProxy,
  startRegistry,
} from '@flotilla/testkit';
import { Engine, call, find, freePort, load, pull } from './image-under-test.js';

it('an image service killed at any moment leaves nothing half-made, and the same command then succeeds', async () => {
  await using scratch = await makeTempDir('image-kill');
  await using registry = await startRegistry({ directory: join(scratch.path, 'registry'), port: await freePort() });
  await using faults = await startFaultProxy(registry.address);
  await using engine = await Engine.start();
  const layers = Array.from({ length: 4 }, (_, at) => gzipLayer(plainTar([[`file${at}`, randomBytes(1_300_000)]])));
  const image = makeImage(layers);
  await registry.push(image, 'web', 'latest');
  const name = `${faults.address}/web`;
  faults.decide = ({ path }) => (path.includes('/blobs/') ? { kind: 'slow', bytesPerSecond: 5_000_000 } : undefined);
  await engine.stopImage();

  const entries = (directory: string) =>
    readdirSync(join(engine.imageDir, directory)).filter((entry) => !entry.startsWith('.trash'));
  const blobCount = () =>
    execFileSync('find', [join(engine.imageDir, 'content'), '-type', 'f'], { encoding: 'utf8' }).split('\n').length - 1;

  for (const killAfterMs of [50, 150, 300, 450, 600, 800, 1000]) {
    const child = await engine.startImageProcess();
    const client = new AbortController();
    const work = Promise.allSettled([
      pull(engine, name, 'latest', {}, client.signal),
      load(engine, dockerArchive(image, ['loaded:1']), {}, client.signal),
    ]);
    await delay(killAfterMs);
    const ended = once(child, 'exit');
    child.kill('SIGKILL');
    await ended;
    client.abort();
    await work;
    engine.client.close();
    await engine.startImage();
    const { images } = await engine.client.listImages({}, call);
    // Either the whole image with all its layers and blobs, or nothing at all.
    expect(entries('layers')).toHaveLength(images.length * 4);
    expect(entries('incoming')).toEqual([]);
    if (images.length === 0) expect(blobCount()).toBe(0);
    else expect(images.map(({ id, lowerDirs }) => [id, lowerDirs.length])).toEqual([[image.id, 4]]);
    expect(await imageStoreFaults(engine.client)).toEqual([]);
    await engine.stopImage();
  }

  await engine.startImage();
  await pull(engine, name);
  expect((await find(engine, name)).lowerDirs).toHaveLength(4);
}, 90_000);
