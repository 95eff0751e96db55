import { randomBytes } from 'node:crypto';
import { existsSync, readFileSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { gzipLayer, makeImage, makeTempDir, plainTar, startFaultProxy, startRegistry } from '@flotilla/testkit';
import type { Fault, FaultProxy, FixtureImage, FixtureLayer, Registry, TempDir } from '@flotilla/testkit';
import { Engine, find, freePort, pull } from './image-under-test.js';

// Layers are unpacked while they are downloaded.

const fileBytes = 1_500_000;
const first = randomBytes(fileBytes);
/** Cut here, the layer has all of its first file and a part of the second; decompressors read and write 1 MiB at once. */
const someBytes = 2_700_000;

let scratch: TempDir;
let registry: Registry;
let faults: FaultProxy;
let engine: Engine;
let image: FixtureImage;
let large: FixtureLayer;

beforeAll(async () => {
  scratch = await makeTempDir('follow-registry');
  registry = await startRegistry({ directory: join(scratch.path, 'registry'), port: await freePort() });
  large = gzipLayer(
    plainTar([
      ['first', first],
      ['second', randomBytes(2 * fileBytes)],
    ]),
  );
  image = makeImage([large]);
  await registry.push(image, 'web', 'latest');
});
afterAll(async () => {
  await registry[Symbol.asyncDispose]();
  await scratch[Symbol.asyncDispose]();
});
beforeEach(async () => {
  faults = await startFaultProxy(registry.address);
});
afterEach(async () => {
  await engine[Symbol.asyncDispose]();
  await faults[Symbol.asyncDispose]();
});

const entries = (path: string) => (existsSync(path) ? readdirSync(path) : []);
const layersDir = () => join(engine.imageDir, 'layers');
const layerDirs = () => entries(layersDir()).filter((name) => !name.startsWith('.'));
/** Sizes of the first file wherever it is being unpacked. */
const unpacking = () =>
  entries(layersDir())
    .filter((name) => name.startsWith('.tmp'))
    .map((name) => statSync(join(layersDir(), name, 'diff/first'), { throwIfNoEntry: false })?.size);
const leftovers = () => [
  ...entries(layersDir()).filter((name) => name.startsWith('.tmp')),
  ...entries(join(engine.imageDir, 'incoming')),
  ...entries(join(engine.root.path, 'exchange')),
];
const eventually = <T>(value: () => T) => expect.poll(value, { interval: 5, timeout: 30_000 });
const requests = (layer: FixtureLayer) =>
  faults.seen.filter(({ method, path }) => method === 'GET' && path.endsWith(layer.digest));

/** The first request of a layer meets a fault, others get 503 until the returned function is called. */
function breakLayer(layer: FixtureLayer, fault: Fault, later?: Fault): () => void {
  let isMended = false;
  faults.decide = ({ method, path }) => {
    if (method !== 'GET' || !path.endsWith(layer.digest)) return undefined;
    if (requests(layer).length === 1) return fault;
    return isMended ? later : { kind: 'status', status: 503 };
  };
  return () => {
    isMended = true;
  };
}
const patient = { retryDelayMs: 50, maxRetryDelayMs: 50, maxDownloadAttempts: 10_000 };

async function expectWhole(name: string, layer = large): Promise<void> {
  const { lowerDirs } = await find(engine, name);
  expect(readFileSync(join(lowerDirs.at(-1) ?? '', 'first')).equals(first)).toBe(true);
  expect(layerDirs()).toHaveLength(lowerDirs.length);
  expect(readFileSync(blobPath(layer)).equals(layer.blob)).toBe(true);
  expect(leftovers()).toEqual([]);
}
const blobPath = ({ digest }: FixtureLayer) =>
  join(engine.imageDir, 'content/sha256', digest.slice(7, 9), digest.slice(7));

describe('a layer whose download is cut', () => {
  it.each<[string, Fault | undefined]>([
    ['is unpacked as far as it has come, and on from there', undefined],
    ['is unpacked anew when the registry cannot resume', { kind: 'ignore-range' }],
  ])('%s', async (_, later) => {
    engine = await Engine.start(patient);
    const name = `${faults.address}/web`;
    const mend = breakLayer(large, { kind: 'cut', afterBytes: someBytes }, later);
    const pulling = pull(engine, name);
    await eventually(unpacking).toEqual([fileBytes]);
    expect([layerDirs(), existsSync(blobPath(large))]).toEqual([[], false]);
    mend();
    await pulling;
    expect(requests(large).at(-1)?.range).toMatch(/^bytes=\d+-$/);
    await expectWhole(name);
  });

  it('goes on when registry-proxy is killed', async () => {
    engine = await Engine.start({ bodyTimeoutMs: 30_000 });
    const name = `${faults.address}/web`;
    breakLayer(large, { kind: 'stall', afterBytes: someBytes })();
    const pulling = pull(engine, name);
    await eventually(unpacking).toEqual([fileBytes]);
    await engine.killProxy();
    await engine.startProxy();
    await pulling;
    expect(requests(large)[1]?.range).toMatch(/^bytes=\d+-$/);
    await expectWhole(name);
  });
});

it('a blob with another digest is told as such, and nothing of its layer stays', async () => {
  engine = await Engine.start();
  breakLayer(large, { kind: 'corrupt', atByte: someBytes });
  await expect(pull(engine, `${faults.address}/web`)).rejects.toMatchObject({
    kind: 'dataLoss',
    message: `filesystem layer verification failed for digest ${large.digest}`,
  });
  await eventually(() => [layerDirs(), leftovers()]).toEqual([[], []]);
});

it('a layer that is no archive is told without waiting for the other layers', async () => {
  engine = await Engine.start({ bodyTimeoutMs: 30_000 });
  const rubbish = gzipLayer(randomBytes(2_000_000));
  await registry.push(makeImage([large, rubbish]), 'rubbish', 'latest');
  breakLayer(large, { kind: 'stall', afterBytes: someBytes });
  await expect(pull(engine, `${faults.address}/rubbish`)).rejects.toThrow(/archive\/tar: invalid tar header/);
  await eventually(() => [layerDirs(), leftovers()]).toEqual([[], []]);
});

it('two pulls share a layer that comes, and the end of one is not the end of the other', async () => {
  engine = await Engine.start(patient);
  const other = makeImage([large, gzipLayer(plainTar([['more', Buffer.from('x')]]))]);
  await registry.push(other, 'other', 'latest');
  const mend = breakLayer(large, { kind: 'cut', afterBytes: someBytes });
  const cancel = new AbortController();
  const pulls = [
    pull(engine, `${faults.address}/web`, 'latest', {}, cancel.signal),
    pull(engine, `${faults.address}/other`),
  ];
  const ends = Promise.allSettled(pulls);
  await eventually(unpacking).toEqual([fileBytes]);
  cancel.abort();
  await expect(pulls[0]).rejects.toMatchObject({ kind: 'cancelled' });
  mend();
  expect((await ends).map(({ status }) => status)).toEqual(['rejected', 'fulfilled']);
  expect(requests(large).filter(({ range }) => range === undefined)).toHaveLength(1);
  await expectWhole(`${faults.address}/other`);
});

it('downloads that stand still keep nobody else waiting', async () => {
  engine = await Engine.start({ bodyTimeoutMs: 60_000 });
  const slow = Array.from({ length: 2 }, () => gzipLayer(plainTar([['slow', randomBytes(2_000_000)]])));
  await registry.push(makeImage(slow), 'slow', 'latest');
  faults.decide = ({ path }) =>
    slow.some(({ digest }) => path.endsWith(digest)) ? { kind: 'stall', afterBytes: 1_200_000 } : undefined;
  const cancel = new AbortController();
  const stuck = pull(engine, `${faults.address}/slow`, 'latest', {}, cancel.signal);
  const end = expect(stuck).rejects.toMatchObject({ kind: 'cancelled' });
  await eventually(unpacking).toHaveLength(2);
  await pull(engine, `${faults.address}/web`);
  expect(unpacking()).toHaveLength(2);
  cancel.abort();
  await end;
  await eventually(leftovers).toEqual([]);
  await expectWhole(`${faults.address}/web`);
});
