import { randomBytes } from 'node:crypto';
import { linkSync, mkdirSync, readFileSync, readdirSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import {
  gzipLayer,
  makeImage,
  makeTempDir,
  plainTar,
  startFaultProxy,
  startRegistry,
  waitFor,
} from '@flotilla/testkit';
import type { Fault, FaultProxy, FixtureImage, Registry, SeenRequest, TempDir } from '@flotilla/testkit';
import { timestampFromDate } from '@flotilla/proto';
import type { common } from '@flotilla/proto';
import { fetchAll, freePort, startProxy } from './proxy-under-test.js';
import type { ProxyUnderTest } from './proxy-under-test.js';

let scratch: TempDir;
let registry: Registry;
let image: FixtureImage;
beforeAll(async () => {
  scratch = await makeTempDir('registry-cache');
  registry = await startRegistry({ directory: join(scratch.path, 'registry'), port: await freePort() });
  const layers = [200_000, 400_000, 600_000].map((size) => gzipLayer(plainTar([['data', randomBytes(size)]]), 0));
  image = makeImage(layers);
  await registry.push(image, 'web', 'latest');
  await registry.push(image, 'private', 'latest');
});
afterAll(async () => {
  await registry[Symbol.asyncDispose]();
  await scratch[Symbol.asyncDispose]();
});

let root: TempDir;
let faults: FaultProxy;
let proxy: ProxyUnderTest;
beforeEach(async () => {
  root = await makeTempDir('registry-cache-root');
  faults = await startFaultProxy(registry.address);
  proxy = await startProxy(root.path);
});
afterEach(async () => {
  await proxy[Symbol.asyncDispose]();
  await faults[Symbol.asyncDispose]();
  await root[Symbol.asyncDispose]();
});

const restart = async (settings: Parameters<typeof startProxy>[1] = {}): Promise<void> => {
  await proxy[Symbol.asyncDispose]();
  proxy = await startProxy(root.path, settings);
};
const user = (username: string, password: string): common.RegistryCredentials => ({
  ...{ username, password, identityToken: '', registryToken: '', serverAddress: '' },
});
const alice = user('alice', 'wonder');
const resolve = (repository = 'web', credentials?: common.RegistryCredentials, reference = 'latest') =>
  proxy.client.resolveManifest(
    { repository: `${faults.address}/${repository}`, reference, credentials },
    { deadlineMs: 30_000 },
  );
const fetchBlob = (digest: string, repository = 'web', credentials?: common.RegistryCredentials) =>
  fetchAll(
    proxy.client.fetchBlob({
      ...{ repository: `${faults.address}/${repository}`, digest, credentials, urls: [], exchangeName: '' },
      ...{ sizeBytes: 0n, stream: true, follow: false },
    }),
  );
/** The manifest and every blob of it, as a pull brings them. */
const pull = async (repository = 'web', credentials?: common.RegistryCredentials) => {
  const { warnings, digest } = await resolve(repository, credentials);
  const blobs = await Promise.all(
    [image.id, ...image.layers.map((layer) => layer.digest)].map((it) => fetchBlob(it, repository, credentials)),
  );
  const transferred = blobs.reduce((sum, { done }) => sum + Number(done.transferredBytes), 0);
  return { warnings, digest, transferred };
};
const wantAlice = ({ authorization }: SeenRequest): Fault | undefined =>
  authorization === `Basic ${Buffer.from('alice:wonder').toString('base64')}`
    ? undefined
    : { kind: 'status', status: 401, headers: { 'www-authenticate': 'Basic realm="test"' } };
const outage = (): Fault => ({ kind: 'status', status: 503 });
const complete = (): string => join(root.path, 'registry-proxy/blobs/complete');
const partial = (): string => join(root.path, 'registry-proxy/blobs/partial');
const layer = (at: number) => image.layers[at] ?? expect.fail('no layer');
const fileOf = (digest: string): string => digest.replace(':', '-');

describe('when the registry does not answer', () => {
  it.each<[string, Fault | 'gone']>([
    ['500', { kind: 'status', status: 500 }],
    ['503', { kind: 'status', status: 503 }],
    ['429', { kind: 'status', status: 429, headers: { 'retry-after': '60' } }],
    ['silence', { kind: 'hang' }],
    ['nobody there', 'gone'],
  ])('the cache does, with a warning: %s', async (_what, fault) => {
    expect((await pull()).warnings).toEqual([]);
    await restart();
    if (fault === 'gone') await faults[Symbol.asyncDispose]();
    // To be asked at all takes longer to be given up.
    else faults.decide = ({ path }) => (fault.kind === 'hang' && path === '/v2/' ? undefined : fault);
    const again = await pull();
    expect(again).toMatchObject({ digest: image.manifestDigest, transferred: 0 });
    expect(again.warnings).toHaveLength(1);
    expect(again.warnings[0]).toMatch(
      new RegExp(
        `^WARNING: ${faults.address} does not answer for latest \\(.*\\): using the cached one of \\d{4}-.*Z$`,
      ),
    );
    expect((await resolve('web', undefined, image.manifestDigest)).warnings).toEqual([]);
    await expect(resolve('web', undefined, 'other')).rejects.toThrow();
    if (fault === 'gone') faults = await startFaultProxy(registry.address);
  });

  it.each([401, 403, 404])('but never for %i', async (status) => {
    await pull();
    faults.decide = () => ({ kind: 'status', status });
    await expect(resolve()).rejects.toThrow();
    await expect(fetchBlob(layer(0).digest)).rejects.toThrow();
  });

  it('only those get private content who fetched it', async () => {
    faults.decide = wantAlice;
    await pull('private', alice);
    await restart();
    faults.decide = outage;
    expect((await pull('private', alice)).warnings).toHaveLength(1);
    for (const other of [undefined, user('alice', 'guess'), user('bob', 'wonder')]) {
      await expect(resolve('private', other)).rejects.toThrow('503');
      await expect(fetchBlob(layer(0).digest, 'private', other)).rejects.toThrow('503');
      // Nor by the name of another repository.
      await expect(fetchBlob(layer(0).digest, 'web', other)).rejects.toThrow('503');
    }
    const kept = readdirSync(join(root.path, 'registry-proxy/db')).map((name) =>
      readFileSync(join(root.path, 'registry-proxy/db', name), 'latin1'),
    );
    expect(kept.join('\n')).not.toMatch(/wonder|alice|YWxpY2U6d29uZGVy/);
    expect(statSync(join(root.path, 'registry-proxy/salt')).mode & 0o777).toBe(0o600);
  });

  it('everybody gets what was public', async () => {
    await pull();
    faults.decide = outage;
    expect((await pull('web', alice)).warnings).toHaveLength(1);
  });

  it('a registry that keeps failing is asked no more for a while, and then is', async () => {
    await pull();
    faults.decide = outage;
    for (let i = 0; i < 3; i += 1) await resolve();
    faults.seen.length = 0;
    expect((await resolve()).warnings).toHaveLength(1);
    expect(faults.seen).toEqual([]);
    // Who has no other way is not refused.
    faults.decide = () => undefined;
    await registry.push(image, 'web', 'second');
    expect((await resolve('web', undefined, 'second')).warnings).toEqual([]);
    // That worked: the circuit is closed.
    expect((await resolve()).warnings).toEqual([]);
  });
});

describe('the cache', () => {
  it('asks only whether a tag is still the same', async () => {
    await pull();
    faults.seen.length = 0;
    expect(await pull()).toMatchObject({ transferred: 0, digest: image.manifestDigest });
    expect(faults.seen.filter(({ method, path }) => method === 'GET' && path !== '/v2/')).toEqual([]);
    const newer = makeImage([layer(1)]);
    await registry.push(newer, 'web', 'moving');
    expect((await resolve('web', undefined, 'moving')).digest).toBe(newer.manifestDigest);
    await registry.push(image, 'web', 'moving');
    expect((await resolve('web', undefined, 'moving')).digest).toBe(image.manifestDigest);
  });

  it('has everything fetched once by fifty pulls at once', async () => {
    faults.decide = ({ path }) => (path.includes('/blobs/') ? { kind: 'slow', bytesPerSecond: 4_000_000 } : undefined);
    const pulls = await Promise.all(Array.from({ length: 50 }, () => pull()));
    expect(new Set(pulls.map(({ digest }) => digest))).toEqual(new Set([image.manifestDigest]));
    const gets = faults.seen.filter(({ method, path }) => method === 'GET' && path !== '/v2/').map(({ path }) => path);
    expect(gets.sort()).toEqual(
      [
        '/v2/web/manifests/latest',
        ...[image.id, ...image.layers.map(({ digest }) => digest)].map((digest) => `/v2/web/blobs/${digest}`),
      ].sort(),
    );
  });

  it('lets one that leaves not end the request of the others', async () => {
    let answer: () => void = () => undefined;
    const until = new Promise<void>((resolve) => (answer = resolve));
    faults.decide = ({ path }) => (path.includes('/manifests/') ? { kind: 'hold', until } : undefined);
    const leave = new AbortController();
    const request = { repository: `${faults.address}/web`, reference: 'latest', credentials: undefined };
    const first = proxy.client.resolveManifest(request, { deadlineMs: 30_000, signal: leave.signal });
    const second = resolve();
    await waitFor(() => faults.seen.some(({ path }) => path.includes('/manifests/')), { what: 'the request' });
    leave.abort();
    await expect(first).rejects.toMatchObject({ kind: 'cancelled' });
    answer();
    expect((await second).digest).toBe(image.manifestDigest);
    expect(faults.seen.filter(({ path }) => path.includes('/manifests/'))).toHaveLength(1);
  });

  it('removes what was used longest ago when it is over its size; what the image service has costs nothing', async () => {
    await pull();
    const at = (n: number): string => join(complete(), fileOf(layer(n).digest));
    mkdirSync(join(root.path, 'content'));
    linkSync(at(0), join(root.path, 'content/layer'));
    for (const [n, minutes] of [
      [0, 30],
      [1, 10],
      [2, 20],
    ] as const) {
      const used = new Date(Date.now() - minutes * 60_000);
      utimesSync(at(n), used, used);
    }
    const before = await proxy.client.getCacheUsage({}, { deadlineMs: 5_000 });
    expect(before).toMatchObject({ blobs: 4n, sharedBytes: BigInt(layer(0).blob.length), partialBlobs: 0n });
    await proxy.reload({ cacheBytes: layer(1).blob.length + 10_000 });
    await waitFor(() => readdirSync(complete()).length === 3, { what: 'the oldest to go' });
    expect(readdirSync(complete())).not.toContain(fileOf(layer(2).digest));
    rmSync(join(root.path, 'content/layer'));
    await proxy.client.forgetBlobs({ digests: [], corrupt: false }, { deadlineMs: 5_000 });
    await waitFor(() => readdirSync(complete()).length === 2, { what: 'the one that became its own to go' });
    expect(readdirSync(complete())).toContain(fileOf(layer(1).digest));
  });

  it('looks again at what was written before the machine was started', async () => {
    await pull();
    writeFileSync(join(root.path, 'registry-proxy/blobs/boot-id'), 'another');
    const broken = join(complete(), fileOf(layer(0).digest));
    writeFileSync(broken, Buffer.alloc(layer(0).blob.length));
    await restart();
    faults.seen.length = 0;
    expect(await pull()).toMatchObject({ transferred: layer(0).blob.length });
    expect(readFileSync(broken).equals(layer(0).blob)).toBe(true);
  });

  it('does not give a whole partial blob to who may not read it', async () => {
    writeFileSync(join(partial(), fileOf(layer(0).digest)), layer(0).blob);
    faults.decide = wantAlice;
    const request = { repository: `${faults.address}/private`, digest: layer(0).digest, urls: [], exchangeName: '' };
    const ask = (credentials?: common.RegistryCredentials) =>
      fetchAll(
        proxy.client.fetchBlob({
          ...request,
          sizeBytes: BigInt(layer(0).blob.length),
          stream: true,
          follow: false,
          credentials,
        }),
      );
    await expect(ask()).rejects.toMatchObject({ kind: 'unauthenticated' });
    expect((await ask(alice)).data.equals(layer(0).blob)).toBe(true);
  });

  it('that is damaged is begun anew', async () => {
    await pull();
    await proxy[Symbol.asyncDispose]();
    for (const name of readdirSync(join(root.path, 'registry-proxy/db'))) {
      writeFileSync(join(root.path, 'registry-proxy/db', name), 'garbage');
    }
    proxy = await startProxy(root.path);
    expect((await pull()).digest).toBe(image.manifestDigest);
    faults.decide = outage;
    expect((await pull()).warnings).toHaveLength(1);
  });
});

describe('interrupted transfers', () => {
  /** One that waits in its middle. */
  const begin = async (): Promise<{ leave: AbortController; ended: Promise<unknown> }> => {
    faults.decide = ({ path }) => (path.endsWith(layer(2).digest) ? { kind: 'stall', afterBytes: 600_000 } : undefined);
    const leave = new AbortController();
    const ended = fetchAll(
      proxy.client.fetchBlob(
        {
          ...{ repository: `${faults.address}/web`, digest: layer(2).digest, credentials: undefined, urls: [] },
          ...{ exchangeName: '', sizeBytes: BigInt(layer(2).blob.length), stream: true, follow: false },
        },
        { signal: leave.signal },
      ),
    ).catch((error: unknown) => error);
    const path = join(partial(), fileOf(layer(2).digest));
    await waitFor(() => statSync(path).size > 500_000, { what: 'a partial blob' });
    return { leave, ended };
  };
  const usage = () => proxy.client.getCacheUsage({}, { deadlineMs: 5_000 });
  const prune = (completeBlobs: boolean, until?: Date) =>
    proxy.client.pruneCache(
      { completeBlobs, until: until === undefined ? undefined : timestampFromDate(until) },
      { deadlineMs: 5_000 },
    );

  it('are told of and removed, but not while they run', async () => {
    const { leave, ended } = await begin();
    expect(await usage()).toMatchObject({ partialBlobs: 0n });
    expect((await prune(true)).reclaimedBytes).toBe(0n);
    leave.abort();
    await ended;
    await waitFor(async () => (await usage()).partialBlobs === 1n, { what: 'the leftover' });
    const { partialBytes } = await usage();
    expect(partialBytes).toBeGreaterThan(500_000n);
    expect((await prune(false, new Date(Date.now() - 60_000))).reclaimedBytes).toBe(0n);
    expect((await prune(false)).reclaimedBytes).toBe(partialBytes);
    expect(readdirSync(partial())).toEqual([]);
  });

  it('are kept in their bound', async () => {
    await restart({ partialBytes: 1000 });
    const { leave, ended } = await begin();
    leave.abort();
    await ended;
    await waitFor(() => readdirSync(partial()).length === 0, { what: 'the leftover to go' });
  });

  it('pruning takes cached blobs only when asked', async () => {
    await pull();
    const { ownBytes } = await usage();
    expect((await prune(false)).reclaimedBytes).toBe(0n);
    expect((await prune(true)).reclaimedBytes).toBe(ownBytes);
    expect(readdirSync(complete())).toEqual([]);
  });
});
