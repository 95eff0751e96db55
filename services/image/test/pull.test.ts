import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import {
  busyboxImage,
  gzipLayer,
  makeImage,
  makeTempDir,
  plainTar,
  startFaultProxy,
  startRegistry,
} from '@flotilla/testkit';
import type { FaultProxy, FixtureImage, Registry, SeenRequest, TempDir } from '@flotilla/testkit';
import { Engine, call, find, freePort, pull, statuses } from './image-under-test.js';

let scratch: TempDir;
let registry: Registry;
let faults: FaultProxy;
let busybox: FixtureImage;
let layered: FixtureImage;
let engine: Engine;

const short = (digest: string) => digest.slice(7, 19);
const isBlob = ({ path }: SeenRequest) => path.includes('/blobs/');
const layerDirs = () => readdirSync(join(engine.imageDir, 'layers')).filter((name) => !name.startsWith('.'));
const blobs = () =>
  execFileSync('find', [join(engine.imageDir, 'content'), '-type', 'f'], { encoding: 'utf8' })
    .trim()
    .split('\n')
    .filter(Boolean);
const leftovers = () => [
  ...readdirSync(join(engine.imageDir, 'layers')).filter((name) => name.startsWith('.tmp')),
  ...readdirSync(join(engine.imageDir, 'incoming')),
  ...readdirSync(join(engine.root.path, 'exchange')),
];

const eventually = <T>(value: () => T) => expect.poll(value, { interval: 5, timeout: 15_000 });

beforeAll(async () => {
  scratch = await makeTempDir('image-registry');
  registry = await startRegistry({ directory: join(scratch.path, 'registry'), port: await freePort() });
  busybox = busyboxImage(scratch.path, { Labels: { made: 'here' } });
  await registry.push(busybox, 'busybox', 'latest');
  const file = (name: string, size: number) => gzipLayer(plainTar([[name, randomBytes(size)]]));
  layered = makeImage([file('a', 400_000), file('b', 2_000_000), file('c', 300_000), file('d', 10), file('e', 1_000)]);
  await registry.push(layered, 'layered', 'v1');
});
afterAll(async () => {
  await registry[Symbol.asyncDispose]();
  await scratch[Symbol.asyncDispose]();
});
beforeEach(async () => {
  faults = await startFaultProxy(registry.address);
  engine = await Engine.start();
});
afterEach(async () => {
  await engine[Symbol.asyncDispose]();
  await faults[Symbol.asyncDispose]();
});

describe('pull', () => {
  it("brings an image, with dockerd's lines", async () => {
    const name = `${registry.address}/busybox`;
    const pulled = await pull(engine, name);
    const layer = short(busybox.layers[0]?.digest ?? '');
    expect(statuses(pulled)).toEqual([
      'latest: Pulling from busybox',
      `${layer}: Pulling fs layer`,
      `${layer}: Verifying Checksum`,
      `${layer}: Download complete`,
      `${layer}: Pull complete`,
      `Digest: ${busybox.manifestDigest}`,
      `Status: Downloaded newer image for ${name}:latest`,
    ]);
    expect(pulled.lines.filter(({ hasDetail }) => hasDetail).map(({ status }) => status)).toContain('Extracting');
    expect(pulled.revision).toBeGreaterThan(0n);
    const image = await find(engine, `${name}:latest`);
    expect(image).toMatchObject({
      id: busybox.id,
      repoTags: [`${name}:latest`],
      repoDigests: [`${name}@${busybox.manifestDigest}`],
      layers: busybox.layers.map(({ diffId }) => diffId),
      config: { cmd: ['sh'], hasCmd: true, hasEntrypoint: false, labels: { made: 'here' } },
      platform: { os: 'linux', architecture: 'amd64' },
      createdKnown: true,
    });
    expect(image.createdAt).toEqual({ seconds: 1704164645n, nanos: 0 });
    const [lower = ''] = image.lowerDirs;
    expect(readFileSync(join(lower, 'etc/passwd'), 'utf8')).toContain('root:x:0:0');
    expect(await find(engine, busybox.id.slice(7, 15))).toEqual(image);
    expect(leftovers()).toEqual([]);
  });

  it('says when nothing is new', async () => {
    const name = `${registry.address}/busybox`;
    await pull(engine, name);
    const again = await pull(engine, name);
    expect(statuses(again)).toEqual([
      'latest: Pulling from busybox',
      `Digest: ${busybox.manifestDigest}`,
      `Status: Image is up to date for ${name}:latest`,
    ]);
  });

  it('pulls by digest', async () => {
    const name = `${registry.address}/busybox`;
    const pulled = await pull(engine, name, busybox.manifestDigest);
    expect(statuses(pulled).at(-1)).toBe(`Status: Downloaded newer image for ${name}@${busybox.manifestDigest}`);
    expect(await find(engine, `${name}@${busybox.manifestDigest}`)).toMatchObject({ id: busybox.id, repoTags: [] });
  });

  it('pulls all tags', async () => {
    await registry.push(busybox, 'many', 'one');
    await registry.push(layered, 'many', 'two');
    await pull(engine, `${registry.address}/many`, '', { allTags: true });
    expect((await find(engine, `${registry.address}/many:one`)).id).toBe(busybox.id);
    expect((await find(engine, `${registry.address}/many:two`)).id).toBe(layered.id);
  });

  it('unpacks many layers and keeps every blob', async () => {
    await pull(engine, `${registry.address}/layered`, 'v1');
    const image = await find(engine, `${registry.address}/layered:v1`);
    expect(image.lowerDirs.map((lower) => readdirSync(lower))).toEqual([['e'], ['d'], ['c'], ['b'], ['a']]);
    expect(image.sizeBytes).toBe(2_701_010n);
    expect(blobs()).toHaveLength(7);
    const history = await engine.client.getImageHistory({ name: image.id, platform: undefined }, call);
    expect(history.entries.map(({ id, createdBy, sizeBytes }) => [id, createdBy, sizeBytes])).toEqual([
      [layered.id, 'fixture layer 4', 1_000n],
      ['<missing>', 'fixture layer 3', 10n],
      ['<missing>', 'fixture layer 2', 300_000n],
      ['<missing>', 'fixture layer 1', 2_000_000n],
      ['<missing>', 'fixture layer 0', 400_000n],
    ]);
  });

  it('uses layers that are there', async () => {
    const [base, ...rest] = layered.layers;
    if (base === undefined) throw new Error('no layer');
    const child = makeImage([base, gzipLayer(plainTar([['new', Buffer.from('x')]]))]);
    await registry.push(child, 'child', 'latest');
    expect(rest).toHaveLength(4);
    await pull(engine, `${registry.address}/layered`, 'v1');
    expect(statuses(await pull(engine, `${registry.address}/child`))).toContain(
      `${short(base.digest)}: Already exists`,
    );
  });

  it('shares the work of many pulls at once, and a cancelled one does not end the others', async () => {
    let answer: () => void = () => undefined;
    const until = new Promise<void>((resolve) => (answer = resolve));
    faults.decide = (seen) => (isBlob(seen) ? { kind: 'hold', until } : undefined);
    const cancel = new AbortController();
    const name = `${faults.address}/layered`;
    const pulls = Array.from({ length: 6 }, (_, at) =>
      pull(engine, name, 'v1', {}, at === 0 ? cancel.signal : undefined),
    );
    await eventually(() => faults.seen.some(isBlob)).toBe(true);
    cancel.abort();
    await expect(pulls[0]).rejects.toMatchObject({ kind: 'cancelled' });
    answer();
    const results = await Promise.allSettled(pulls);
    expect(results.map(({ status }) => status)).toEqual(['rejected', ...Array<string>(5).fill('fulfilled')]);
    const fetched = faults.seen.filter((seen) => isBlob(seen) && seen.method === 'GET').map(({ path }) => path);
    expect(new Set(fetched).size).toBe(fetched.length);
    expect((await find(engine, `${name}:v1`)).id).toBe(layered.id);
  });

  it('leaves nothing when it is cancelled', async () => {
    faults.decide = (seen) => (isBlob(seen) ? { kind: 'stall', afterBytes: 10_000 } : undefined);
    const cancel = new AbortController();
    const waiting = pull(engine, `${faults.address}/layered`, 'v1', {}, cancel.signal);
    await eventually(() => blobs().length + leftovers().length).toBeGreaterThan(0);
    cancel.abort();
    await expect(waiting).rejects.toMatchObject({ kind: 'cancelled' });
    await eventually(() => [layerDirs(), blobs(), leftovers()]).toEqual([[], [], []]);
  });

  it('picks the platform from an index, and refuses one that is not there', async () => {
    const arm = makeImage([gzipLayer(plainTar([['arm', Buffer.from('x')]]))], {}, 'arm64');
    await registry.push(arm, 'multi', 'arm');
    await registry.push(busybox, 'multi', 'amd');
    const entry = (image: FixtureImage, architecture: string) => ({
      mediaType: image.manifestType,
      digest: image.manifestDigest,
      size: image.manifestJson.length,
      platform: { os: 'linux', architecture },
    });
    const mediaType = 'application/vnd.docker.distribution.manifest.list.v2+json';
    const index = JSON.stringify({
      schemaVersion: 2,
      mediaType,
      manifests: [entry(arm, 'arm64'), entry(busybox, 'amd64')],
    });
    await fetch(`http://${registry.address}/v2/multi/manifests/latest`, {
      method: 'PUT',
      body: index,
      headers: { 'content-type': mediaType },
    });
    const name = `${registry.address}/multi`;
    await pull(engine, name);
    expect(await find(engine, name)).toMatchObject({ id: busybox.id, descriptor: { mediaType } });
    const platform = (architecture: string) => ({
      os: 'linux',
      architecture,
      variant: '',
      osVersion: '',
      osFeatures: [],
    });
    await pull(engine, name, 'latest', { platform: platform('arm64') });
    expect(await find(engine, arm.id)).toMatchObject({ repoTags: [`${name}:latest`] });
    await expect(pull(engine, name, 'latest', { platform: platform('s390x') })).rejects.toMatchObject({
      kind: 'notFound',
      message: 'no matching manifest for linux/s390x in the manifest list entries',
    });
    const single = await pull(engine, `${registry.address}/busybox`, 'latest', { platform: platform('arm64') });
    expect(statuses(single).at(-1)).toBe(
      `WARNING: image with reference ${registry.address}/busybox:latest was found but its platform (linux/amd64) does not match the specified platform (linux/arm64)`,
    );
    await expect(
      engine.client.getImage({ name: `${registry.address}/busybox`, platform: platform('arm64') }, call),
    ).rejects.toMatchObject({ kind: 'notFound' });
  });

  it('reads OCI images with zstd and plain layers', async () => {
    const copy = (args: string[]) => {
      execFileSync(
        'skopeo',
        ['--insecure-policy', 'copy', '--src-tls-verify=false', '--dest-tls-verify=false', ...args],
        { stdio: 'pipe' },
      );
    };
    const source = `docker://${registry.address}/layered:v1`;
    const layout = join(scratch.path, 'layout');
    copy(['--format', 'oci', '--dest-compress-format', 'zstd', source, `docker://${registry.address}/zstd:v1`]);
    copy(['--dest-decompress', source, `dir:${layout}`]);
    copy(['--format', 'oci', `dir:${layout}`, `docker://${registry.address}/oci:v1`]);
    for (const name of ['zstd', 'oci']) {
      await pull(engine, `${registry.address}/${name}`, 'v1');
      const image = await find(engine, `${registry.address}/${name}:v1`);
      expect(image.layers).toEqual(layered.layers.map(({ diffId }) => diffId));
    }
  });

  it('survives the death of registry-proxy', async () => {
    faults.decide = (seen) => (isBlob(seen) ? { kind: 'slow', bytesPerSecond: 4_000_000 } : undefined);
    const pulling = pull(engine, `${faults.address}/layered`, 'v1');
    const partial = join(engine.root.path, 'registry-proxy/blobs/partial');
    const partialBytes = () => readdirSync(partial).map((name) => statSync(join(partial, name)).size);
    await eventually(() => Math.max(0, ...partialBytes())).toBeGreaterThan(500_000);
    await engine.killProxy();
    await engine.startProxy();
    await pulling;
    expect((await find(engine, `${faults.address}/layered:v1`)).id).toBe(layered.id);
    expect(faults.seen.some((seen) => seen.range !== undefined)).toBe(true);
  });
});

describe('bad registries and images', () => {
  it.each([
    [
      'no such tag',
      'nope',
      undefined,
      'notFound',
      /^manifest for 127.0.0.1:\d+\/layered:nope not found: manifest unknown: manifest unknown$/,
    ],
    ['401', 'v1', { kind: 'status' as const, status: 401 }, 'internal', /^unauthorized: authentication required$/],
    [
      '404',
      'v1',
      { kind: 'status' as const, status: 404 },
      'notFound',
      /^manifest for .* not found: received unexpected HTTP status: 404 Not Found$/,
    ],
    ['429', 'v1', { kind: 'status' as const, status: 429 }, 'internal', /^toomanyrequests: too many requests$/],
    [
      '500',
      'v1',
      { kind: 'status' as const, status: 500 },
      'internal',
      /^received unexpected HTTP status: 500 Internal Server Error$/,
    ],
    ['hang', 'v1', { kind: 'hang' as const }, 'internal', /Client.Timeout exceeded while awaiting headers/],
    ['cut', 'v1', { kind: 'cut' as const, afterBytes: 10 }, 'internal', /unexpected EOF/],
  ])('manifest: %s', async (_, tag, fault, kind, message) => {
    faults.decide = ({ path }) => (path.includes('/manifests/') ? fault : undefined);
    const seen: unknown[] = [];
    const stream = engine.client.pullImage({
      name: `${faults.address}/layered`,
      tag,
      allTags: false,
      platform: undefined,
      credentials: undefined,
    });
    const reading = (async () => {
      for await (const line of stream) seen.push(line);
    })();
    await expect(reading).rejects.toMatchObject({ kind, message: expect.stringMatching(message) as string });
    // Nothing was said before: the refusal is the status of the whole request.
    expect(seen).toEqual([]);
    expect([layerDirs(), blobs(), leftovers()]).toEqual([[], [], []]);
  });

  it.each([
    ['404', { kind: 'status' as const, status: 404 }, /unknown blob|404/],
    ['500', { kind: 'status' as const, status: 500 }, /received unexpected HTTP status: 500/],
    ['corrupt', { kind: 'corrupt' as const, atByte: 1000 }, /^filesystem layer verification failed for digest sha256:/],
    ['cut', { kind: 'cut' as const, afterBytes: 1000 }, /unexpected EOF/],
    ['stall', { kind: 'stall' as const, afterBytes: 1000 }, /i\/o timeout/],
  ])(
    'one bad layer of five, nothing stays: %s',
    async (_, fault, message) => {
      const bad = layered.layers[2]?.digest ?? '';
      faults.decide = ({ path }) => (path.endsWith(bad) ? fault : undefined);
      await expect(pull(engine, `${faults.address}/layered`, 'v1')).rejects.toMatchObject({
        message: expect.stringMatching(message) as string,
      });
      await eventually(() => [layerDirs(), blobs(), leftovers()]).toEqual([[], [], []]);
      await expect(find(engine, `${faults.address}/layered:v1`)).rejects.toMatchObject({ kind: 'notFound' });
      faults.decide = () => undefined;
      faults.seen.length = 0;
      await pull(engine, `${faults.address}/layered`, 'v1');
      expect((await find(engine, `${faults.address}/layered:v1`)).id).toBe(layered.id);
      // What had been fetched before was used.
      const fetched = faults.seen.filter((seen) => isBlob(seen) && seen.method === 'GET');
      expect(fetched.length).toBeLessThan(layered.layers.length + 1);
    },
    30_000,
  );

  const tar = plainTar([['file', randomBytes(5000)]]);
  const good = gzipLayer(tar);
  it.each([
    ['a DiffID that does not fit', { ...good, diffId: `sha256:${'1'.repeat(64)}` }, /layer verification failed/],
    ['a layer that is no archive', gzipLayer(Buffer.from('x'.repeat(2000))), /failed to register layer/],
    ['truncated gzip', truncated(good.blob.subarray(0, -20)), /failed to register layer/],
    ['a tar that ends too early', gzipLayer(tar.subarray(0, 1536)), /failed to register layer/],
    [
      'an absolute symbolic link used as a directory',
      gzipLayer(plainTar([{ name: 'd', type: '2', linkname: '/etc' }, ['d/flotilla-escape', Buffer.from('x')]])),
      undefined,
    ],
    [
      'parent directories in a name',
      gzipLayer(plainTar([['../../../../flotilla-escape', Buffer.from('x')]])),
      undefined,
    ],
  ])('%s', async (name, layer, message) => {
    const image = makeImage([gzipLayer(plainTar([['base', Buffer.from(name)]])), layer]);
    await registry.push(image, 'bad', 'latest');
    const pulling = pull(engine, `${registry.address}/bad`);
    if (message === undefined) await pulling.catch(() => undefined);
    else {
      await expect(pulling).rejects.toMatchObject({ message: expect.stringMatching(message) as string });
      await eventually(() => [layerDirs(), blobs(), leftovers()]).toEqual([[], [], []]);
    }
    expect(existsSync('/etc/flotilla-escape') || existsSync('/flotilla-escape')).toBe(false);
    await pull(engine, `${registry.address}/busybox`);
  });

  it('a configuration that does not fit its layers, an artifact, schema 1', async () => {
    const put = async (tag: string, mediaType: string, manifest: unknown) => {
      faults.decide = ({ path }) =>
        path.endsWith(`/manifests/${tag}`)
          ? { kind: 'status', status: 200, headers: { 'content-type': mediaType }, body: JSON.stringify(manifest) }
          : undefined;
      return pull(engine, `${faults.address}/layered`, tag);
    };
    const manifest = JSON.parse(layered.manifestJson.toString()) as { layers: unknown[]; config: object };
    await expect(
      put('short', layered.manifestType, { ...manifest, layers: manifest.layers.slice(1) }),
    ).rejects.toMatchObject({
      message: "layers from manifest don't match image configuration",
    });
    const artifact = {
      ...manifest,
      config: { ...manifest.config, mediaType: 'application/vnd.cncf.helm.config.v1+json' },
    };
    await expect(put('chart', layered.manifestType, artifact)).rejects.toMatchObject({
      kind: 'invalidArgument',
      message:
        'unsupported media type application/vnd.cncf.helm.config.v1+json: the reference is not a container image',
    });
    await expect(
      put('old', 'application/vnd.docker.distribution.manifest.v1+prettyjws', { schemaVersion: 1 }),
    ).rejects.toMatchObject({ message: expect.stringContaining('schema 1 are not supported') as string });
    expect([layerDirs(), blobs(), leftovers()]).toEqual([[], [], []]);
  });

  it('a full disk', async () => {
    await engine.stopImage();
    const content = join(engine.imageDir, 'layers');
    rmSync(content, { recursive: true });
    mkdirSync(content);
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', content]);
    try {
      await engine.startImage();
      await expect(pull(engine, `${registry.address}/layered`, 'v1')).rejects.toMatchObject({
        message: expect.stringContaining('no space left on device') as string,
      });
      await eventually(() => [layerDirs(), blobs(), leftovers()]).toEqual([[], [], []]);
      await pull(engine, `${registry.address}/child`).catch(() => undefined);
    } finally {
      await engine.stopImage();
      execFileSync('umount', [content]);
      await engine.startImage();
    }
  });
});

describe('restart', () => {
  it('keeps images and drops what no record names', async () => {
    await pull(engine, `${registry.address}/layered`, 'v1');
    const before = await find(engine, layered.id);
    await engine.stopImage();
    mkdirSync(join(engine.imageDir, 'layers', `.tmp-half`));
    writeFileSync(join(engine.imageDir, 'incoming', 'half'), 'x');
    mkdirSync(join(engine.imageDir, 'content/sha256/00'), { recursive: true });
    writeFileSync(join(engine.imageDir, 'content/sha256/00', '0'.repeat(64)), 'orphan');
    mkdirSync(join(engine.imageDir, 'containers/half/diff'), { recursive: true });
    await engine.startImage();
    expect(await find(engine, layered.id)).toEqual(before);
    expect(blobs()).toHaveLength(7);
    expect(leftovers()).toEqual([]);
    expect(readdirSync(join(engine.imageDir, 'containers')).filter((name) => !name.startsWith('.'))).toEqual([]);
  });
});

function truncated(blob: Buffer) {
  return { ...gzipLayer(Buffer.alloc(0)), blob, digest: sha256Of(blob), diffId: sha256Of(blob) };
}
function sha256Of(bytes: Buffer): string {
  return `sha256:${execFileSync('sha256sum', { input: bytes, encoding: 'utf8' }).slice(0, 64)}`;
}
