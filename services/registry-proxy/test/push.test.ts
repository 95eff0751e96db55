import { randomBytes, randomUUID } from 'node:crypto';
import { readdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { common, registry as proto } from '@flotilla/proto';
import { makeImage, gzipLayer, makeTempDir, plainTar, sha256, startFaultProxy, startRegistry } from '@flotilla/testkit';
import type { FaultProxy, FixtureImage, Registry, SeenRequest, TempDir } from '@flotilla/testkit';
import { freePort, startProxy } from './proxy-under-test.js';
import type { ProxyUnderTest } from './proxy-under-test.js';
import { startUploadRegistry } from './upload-registry.js';
import type { UploadRegistry } from './upload-registry.js';

let scratch: TempDir;
let registry: Registry;
beforeAll(async () => {
  scratch = await makeTempDir('push-registry');
  registry = await startRegistry({ directory: join(scratch.path, 'registry'), port: await freePort() });
});
afterAll(async () => {
  await registry[Symbol.asyncDispose]();
  await scratch[Symbol.asyncDispose]();
});

let root: TempDir;
let proxy: ProxyUnderTest;
let faults: FaultProxy;
let scripted: UploadRegistry;
const chunk = 1_000_000;
beforeEach(async () => {
  root = await makeTempDir('push-root');
  faults = await startFaultProxy(registry.address);
  scripted = await startUploadRegistry();
  proxy = await startProxy(root.path, { uploadChunkBytes: chunk });
});
afterEach(async () => {
  await proxy[Symbol.asyncDispose]();
  await scripted[Symbol.asyncDispose]();
  await faults[Symbol.asyncDispose]();
  await root[Symbol.asyncDispose]();
});

interface Pushed {
  readonly statuses: string[];
  readonly furthest: number;
  readonly done: proto.PushedBlob;
}

/** Lay the bytes into the exchange directory and push them. */
async function push(
  repository: string,
  bytes: Buffer,
  options: Partial<proto.PushBlobRequest> = {},
  signal?: AbortSignal,
): Promise<Pushed> {
  const path = join(root.path, 'exchange', `push-${randomUUID()}`);
  writeFileSync(path, bytes);
  const request = {
    repository,
    digest: sha256(bytes),
    sizeBytes: BigInt(bytes.length),
    credentials: undefined,
    path,
    mountFrom: [],
    ...options,
  };
  const statuses: string[] = [];
  let furthest = 0;
  for await (const { event } of proxy.client.pushBlob(request, { signal })) {
    if (event?.$case === 'done') return { statuses, furthest, done: event.value };
    if (event?.value.status !== '') statuses.push(event?.value.status ?? '');
    furthest = Math.max(furthest, Number(event?.value.currentBytes ?? 0n));
  }
  throw new Error('the stream ended without done');
}

const pushImageManifest = (repository: string, image: FixtureImage, reference = 'latest') =>
  proxy.client.pushManifest(
    { repository, reference, mediaType: image.manifestType, content: image.manifestJson, credentials: undefined },
    { deadlineMs: 20_000 },
  );
const image = (...sizes: number[]) =>
  makeImage(sizes.map((size, at) => gzipLayer(plainTar([[`f${at}`, randomBytes(size)]]), 0)));
const count = (method: string, part: string) => (seen: SeenRequest) =>
  seen.method === method && seen.path.includes(part);
const sent = (bytes: Buffer): Partial<proto.PushedBlob> => ({
  alreadyExists: false,
  mountedFrom: '',
  transferredBytes: BigInt(bytes.length),
});

describe('PushBlob to docker-registry', () => {
  it('sends small blobs at once and large ones in pieces; the image can then be pulled', async () => {
    const pushed = image(1000, 2_500_000);
    const name = `${faults.address}/fresh`;
    for (const { blob } of pushed.layers) {
      const { done, furthest } = await push(name, blob);
      expect(done).toMatchObject(sent(blob));
      expect(furthest).toBe(blob.length);
    }
    await push(name, pushed.configJson);
    expect(faults.seen.filter(count('PATCH', '/uploads/'))).toHaveLength(3);
    expect(await pushImageManifest(name, pushed)).toEqual({ digest: pushed.manifestDigest });
    const resolved = await proxy.client.resolveManifest(
      { repository: name, reference: 'latest', credentials: undefined },
      { deadlineMs: 10_000 },
    );
    expect(resolved.content.equals(pushed.manifestJson)).toBe(true);
  });

  it('skips what is there and mounts what another repository has', async () => {
    const blob = randomBytes(50_000);
    await push(`${registry.address}/one`, blob);
    const again = await push(`${faults.address}/one`, blob);
    expect(again.done).toMatchObject({ alreadyExists: true, transferredBytes: 0n });
    const mountFrom = [`${faults.address}/nothing`, `elsewhere.example/one`, `${faults.address}/one`];
    const mounted = await push(`${faults.address}/two`, blob, { mountFrom });
    expect(mounted.done).toMatchObject({ mountedFrom: 'one', transferredBytes: 0n });
    expect(faults.seen.filter(({ method }) => method === 'PUT')).toEqual([]);
    expect(faults.seen.filter(({ path }) => path.includes('elsewhere'))).toEqual([]);
    const nowhere = await push(`${faults.address}/three`, randomBytes(10), { mountFrom });
    expect(nowhere.done).toMatchObject({ mountedFrom: '', alreadyExists: false });
  });

  it('goes on after a piece was refused, and begins anew where the registry lost the upload', async () => {
    const blob = randomBytes(2_500_000);
    let pieces = 0;
    faults.decide = (seen) =>
      count('PATCH', '')(seen) && ++pieces === 2 ? { kind: 'status', status: 503 } : undefined;
    const refused = await push(`${faults.address}/resumed`, blob);
    expect(refused.done).toMatchObject({ alreadyExists: false, mountedFrom: '' });
    expect(faults.seen.filter(count('PATCH', ''))).toHaveLength(4);
    expect(faults.seen.filter(count('POST', ''))).toHaveLength(1);
    expect(refused.statuses).toEqual(['Retrying in 1 second']);
    expect(faults.seen.filter(count('GET', '/uploads/'))).toHaveLength(1);
    // This registry (2.8) gives up an upload whose connection broke inside a piece.
    pieces = 0;
    faults.decide = (seen) =>
      count('PATCH', '')(seen) && ++pieces === 2 ? { kind: 'cut-request', afterBytes: 300_000 } : undefined;
    const other = randomBytes(2_500_000);
    const { done } = await push(`${faults.address}/resumed`, other);
    expect(done.alreadyExists).toBe(false);
    expect(Number(done.transferredBytes)).toBeGreaterThan(other.length);
  });
});

describe('PushBlob by the specification', () => {
  it('resumes at the byte where a connection was cut, in a piece and in a whole', async () => {
    let cuts = 0;
    scripted.cutAfter = ({ method }) => (method === 'PATCH' && ++cuts === 2 ? 400_000 : undefined);
    const large = randomBytes(2_500_000);
    const { done } = await push(`${scripted.address}/x`, large);
    expect(scripted.blobs.get(`x ${sha256(large)}`)?.equals(large)).toBe(true);
    // All but what was under way when the line broke went once.
    expect(Number(done.transferredBytes)).toBeLessThan(large.length + 600_001);
    cuts = 0;
    scripted.cutAfter = ({ method }) => (method === 'PUT' && ++cuts === 1 ? 400_000 : undefined);
    const small = randomBytes(900_000);
    await push(`${scripted.address}/x`, small);
    expect(scripted.blobs.get(`x ${sha256(small)}`)?.equals(small)).toBe(true);
    expect(scripted.seen.filter((line) => line.startsWith('POST '))).toHaveLength(2);
    expect(scripted.uploads.size).toBe(0);
  });

  it('believes the registry about how far it is', async () => {
    const large = randomBytes(1_500_000);
    let isFirst = true;
    scripted.intercept = (request, response) => {
      if (request.method !== 'PATCH' || !isFirst) return false;
      isFirst = false;
      response.writeHead(416, { range: '0-0' }).end();
      return true;
    };
    await push(`${scripted.address}/x`, large);
    expect(scripted.blobs.get(`x ${sha256(large)}`)?.equals(large)).toBe(true);
  });

  it('sends a blob whole to a registry that takes no pieces', async () => {
    scripted.intercept = (request, response) => {
      if (request.method !== 'PATCH') return false;
      response.writeHead(405).end();
      return true;
    };
    const large = randomBytes(1_500_000);
    await push(`${scripted.address}/x`, large);
    expect(scripted.blobs.get(`x ${sha256(large)}`)?.equals(large)).toBe(true);
    expect(scripted.uploads.size).toBe(0);
  });

  it('takes an upload whose last answer was lost as done', async () => {
    let isFirst = true;
    scripted.intercept = (request, response) => {
      if (request.method !== 'PUT' || !isFirst) return false;
      isFirst = false;
      response.writeHead = () => {
        response.destroy();
        return response;
      };
      return false;
    };
    const blob = randomBytes(1000);
    expect((await push(`${scripted.address}/x`, blob)).done).toMatchObject(sent(blob));
    expect(scripted.seen.filter((line) => line.startsWith('PUT '))).toHaveLength(1);
  });

  it('sends no credentials to where another host takes the bytes', async () => {
    await using storage = await startUploadRegistry();
    const seen: (string | undefined)[] = [];
    storage.intercept = (request) => {
      seen.push(request.headers.authorization);
      return false;
    };
    scripted.intercept = (request, response) => {
      if (request.headers.authorization !== undefined) return false;
      response.writeHead(401, { 'www-authenticate': 'Basic realm="x"' }).end();
      return true;
    };
    storage.uploads.set('elsewhere', Buffer.alloc(0));
    scripted.location = () => `${storage.origin}/v2/x/blobs/uploads/elsewhere?signature=1`;
    const blob = randomBytes(1000);
    await push(`${scripted.address}/x`, blob, { credentials: user('alice', 'wonder') });
    expect(storage.blobs.get(`x ${sha256(blob)}`)?.equals(blob)).toBe(true);
    expect(seen).toEqual([undefined]);
  });
});

const user = (username: string, password: string): common.RegistryCredentials => ({
  username,
  password,
  identityToken: '',
  registryToken: '',
  serverAddress: '',
});

describe('refusals', () => {
  it.each([
    [401, '', 'unauthenticated', 'unauthorized: authentication required', 1],
    [
      403,
      '{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}',
      'permissionDenied',
      'denied: requested access to the resource is denied',
      1,
    ],
    [
      404,
      '{"errors":[{"code":"NAME_UNKNOWN","message":"repository name not known to registry"}]}',
      'notFound',
      'name unknown: repository name not known to registry',
      1,
    ],
    [429, '', 'internal', 'toomanyrequests: too many requests', 5],
    [500, 'oops', 'internal', 'received unexpected HTTP status: 500 Internal Server Error', 5],
  ])('are told in words: %i %s', async (status, body, kind, message, tries) => {
    faults.decide = (seen) => (count('POST', '/uploads/')(seen) ? { kind: 'status', status, body } : undefined);
    const blob = randomBytes(1000);
    await expect(push(`${faults.address}/refused`, blob)).rejects.toMatchObject({ kind, message });
    expect(faults.seen.filter(count('POST', '/uploads/'))).toHaveLength(tries);
    faults.decide = ({ method }) => (method === 'PUT' ? { kind: 'status', status, body } : undefined);
    await expect(pushImageManifest(`${faults.address}/refused`, image(10))).rejects.toMatchObject({ kind, message });
  });

  it('tell at once of a registry that is not there', async () => {
    await expect(push('127.0.0.1:1/x', randomBytes(10))).rejects.toMatchObject({
      kind: 'internal',
      message: 'Get "http://127.0.0.1:1/v2/": dial tcp 127.0.0.1:1: connect: connection refused',
    });
  });

  it('waits as Retry-After asks, then goes on', async () => {
    let failures = 2;
    faults.decide = (seen) =>
      count('POST', '/uploads/')(seen) && failures-- > 0
        ? { kind: 'status', status: 429, headers: { 'retry-after': '0' } }
        : undefined;
    const blob = randomBytes(1000);
    expect((await push(`${faults.address}/patient`, blob)).done).toMatchObject(sent(blob));
  });

  it('tell of missing credentials and wrong ones, and a new token is bought when one has run out', async () => {
    const basic = `Basic ${Buffer.from('alice:wonder').toString('base64')}`;
    faults.decide = ({ authorization }) =>
      authorization === basic
        ? undefined
        : { kind: 'status', status: 401, headers: { 'www-authenticate': 'Basic realm="test"' } };
    const blob = randomBytes(1000);
    const name = `${faults.address}/private`;
    await expect(push(name, blob)).rejects.toMatchObject({
      kind: 'unauthenticated',
      message: 'no basic auth credentials',
    });
    await expect(push(name, blob, { credentials: user('alice', 'wrong') })).rejects.toMatchObject({
      kind: 'unauthenticated',
      message: 'unauthorized: authentication required',
    });
    expect((await push(name, blob, { credentials: user('alice', 'wonder') })).done).toMatchObject(sent(blob));
  });

  it('end a push of bytes that are not those of the digest, and take back what was begun', async () => {
    const bytes = randomBytes(2_500_000);
    await expect(push(`${scripted.address}/x`, bytes, { digest: sha256(randomBytes(1)) })).rejects.toMatchObject({
      kind: 'internal',
      message: 'digest invalid: digest invalid',
    });
    expect(scripted.seen.filter((line) => line.startsWith('PUT '))).toHaveLength(2);
    expect(scripted.uploads.size).toBe(0);
    scripted.intercept = (request, response) => {
      if (request.method !== 'PUT') return false;
      response.writeHead(201, { 'docker-content-digest': `sha256:${'0'.repeat(64)}` }).end();
      return true;
    };
    await expect(push(`${scripted.address}/x`, randomBytes(10))).rejects.toMatchObject({
      kind: 'dataLoss',
      message: expect.stringContaining('the registry stored') as string,
    });
    await expect(pushImageManifest(`${scripted.address}/x`, image(10))).rejects.toMatchObject({ kind: 'dataLoss' });
  });

  it('end a push that its caller left', async () => {
    const cancel = new AbortController();
    scripted.intercept = (request) => {
      if (request.method !== 'PATCH') return false;
      cancel.abort();
      return true;
    };
    const pushing = push(`${scripted.address}/x`, randomBytes(1_500_000), {}, cancel.signal);
    await expect(pushing).rejects.toMatchObject({ kind: 'cancelled' });
    await expect.poll(() => scripted.uploads.size, { interval: 5, timeout: 10_000 }).toBe(0);
  });

  it('take only a link in the exchange directory, of the size that was told', async () => {
    const bytes = randomBytes(10);
    const outside = join(root.path, 'outside');
    const refusal = 'the path of a blob must be a link in the exchange directory';
    writeFileSync(outside, bytes);
    const sneaky = join(root.path, 'exchange', 'push-link');
    symlinkSync(outside, sneaky);
    for (const path of [outside, `${root.path}/exchange/../outside`, '/etc/passwd']) {
      await expect(push(`${registry.address}/x`, bytes, { path }), path).rejects.toMatchObject({
        kind: 'invalidArgument',
        message: refusal,
      });
    }
    await expect(push(`${registry.address}/x`, bytes, { path: sneaky })).rejects.toMatchObject({ kind: 'internal' });
    await expect(push(`${registry.address}/x`, bytes, { sizeBytes: 11n })).rejects.toMatchObject({ kind: 'dataLoss' });
    // Whoever laid a link takes it away.
    expect(readdirSync(join(root.path, 'exchange')).every((name) => name.startsWith('push-'))).toBe(true);
  });
});
