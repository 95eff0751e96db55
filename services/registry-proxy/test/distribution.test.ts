import { randomBytes } from 'node:crypto';
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { request as httpRequest } from 'node:http';
import type { IncomingHttpHeaders, RequestOptions } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import {
  gzipLayer,
  makeCertificates,
  makeImage,
  makeTempDir,
  plainTar,
  startFaultProxy,
  startRegistry,
  waitFor,
} from '@flotilla/testkit';
import type { FaultProxy, FixtureImage, Registry, TempDir } from '@flotilla/testkit';
import type { RegistryConfig } from '@flotilla/config';
import { registry as proto } from '@flotilla/proto';
import { fetchAll, freePort, startProxy } from './proxy-under-test.js';
import type { ProxyUnderTest } from './proxy-under-test.js';

type Serve = NonNullable<RegistryConfig['registry']['serve']>;

let scratch: TempDir;
let registry: Registry;
let image: FixtureImage;
const size = 3_000_000;
beforeAll(async () => {
  scratch = await makeTempDir('distribution');
  registry = await startRegistry({ directory: join(scratch.path, 'registry'), port: await freePort() });
  image = makeImage([gzipLayer(plainTar([['data', randomBytes(size)]]), 0)]);
  for (const tag of ['latest', 'a', 'b', 'c']) await registry.push(image, 'team/web', tag);
});
afterAll(async () => {
  await registry[Symbol.asyncDispose]();
  await scratch[Symbol.asyncDispose]();
});

let root: TempDir;
let faults: FaultProxy;
let proxy: ProxyUnderTest;
let serve: Serve;
const start = async (more: Partial<Serve> = {}): Promise<void> => {
  serve = { host: '127.0.0.1', port: await freePort(), ...more };
  proxy = await startProxy(root.path, { serve });
};
beforeEach(async () => {
  root = await makeTempDir('distribution-root');
  faults = await startFaultProxy(registry.address);
  await start();
});
afterEach(async () => {
  await proxy[Symbol.asyncDispose]();
  await faults[Symbol.asyncDispose]();
  await root[Symbol.asyncDispose]();
});

interface Answer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: Buffer;
}

function ask(path: string, options: RequestOptions & { tls?: object } = {}): Promise<Answer> {
  const { tls, ...rest } = options;
  const wanted = { host: '127.0.0.1', port: serve.port, path, agent: false, ...rest };
  return new Promise((resolve, reject) => {
    const sent = tls === undefined ? httpRequest(wanted) : httpsRequest({ ...wanted, ...tls });
    sent.once('error', reject);
    sent.once('response', (response) => {
      const chunks: Buffer[] = [];
      response.on('data', (chunk: Buffer) => chunks.push(chunk));
      response.once('error', reject);
      response.once('end', () =>
        resolve({ status: response.statusCode ?? 0, headers: response.headers, body: Buffer.concat(chunks) }),
      );
    });
    sent.end();
  });
}
const code = ({ body }: Answer): string =>
  (JSON.parse(body.toString()) as { errors: { code: string }[] }).errors[0]?.code ?? '';
const layer = () => image.layers[0] ?? expect.fail('no layer');
const name = (): string => faults.address.replace(':', '__') + '/team/web';
const basic = (text: string) => ({ authorization: `Basic ${Buffer.from(text).toString('base64')}` });

describe('the distribution API', () => {
  it("gives manifests by tag and digest, with containerd's parameter or the registry in the path", async () => {
    for (const path of [
      `/v2/${name()}/manifests/latest`,
      `/v2/team/web/manifests/latest?ns=${faults.address}`,
      `/v2/${name()}/manifests/${image.manifestDigest}`,
    ]) {
      const got = await ask(path);
      expect(got).toMatchObject({
        status: 200,
        headers: {
          'content-type': image.manifestType,
          'docker-content-digest': image.manifestDigest,
          'docker-distribution-api-version': 'registry/2.0',
        },
      });
      expect(got.body.equals(image.manifestJson)).toBe(true);
      const head = await ask(path, { method: 'HEAD' });
      expect(head).toMatchObject({ status: 200, body: Buffer.alloc(0) });
      expect(head.headers['content-length']).toBe(String(image.manifestJson.length));
      const same = await ask(path, { headers: { 'if-none-match': `"${image.manifestDigest}"` } });
      expect(same).toMatchObject({ status: 304, body: Buffer.alloc(0) });
    }
  });

  it('gives blobs, whole and in ranges, fetched once', async () => {
    const path = `/v2/${name()}/blobs/${layer().digest}`;
    const { blob } = layer();
    expect((await ask(path, { method: 'HEAD' })).headers['content-length']).toBe(String(blob.length));
    expect(faults.seen.some(({ method, path: seen }) => method === 'GET' && seen.includes('/blobs/'))).toBe(false);
    expect((await ask(path)).body.equals(blob)).toBe(true);
    const part = await ask(path, { headers: { range: 'bytes=1000-1999' } });
    expect(part).toMatchObject({ status: 206, headers: { 'content-range': `bytes 1000-1999/${blob.length}` } });
    expect(part.body.equals(blob.subarray(1000, 2000))).toBe(true);
    const end = await ask(path, { headers: { range: 'bytes=-5' } });
    expect(end.body.equals(blob.subarray(-5))).toBe(true);
    const none = await ask(path, { headers: { range: `bytes=${blob.length}-` } });
    expect(none).toMatchObject({ status: 416, headers: { 'content-range': `bytes */${blob.length}` } });
    expect(code(none)).toBe('RANGE_INVALID');
    expect(faults.seen.filter(({ method, path: seen }) => method === 'GET' && seen.includes('/blobs/'))).toHaveLength(
      1,
    );
  });

  it('lists 10,000 tags in pages, and refuses a list without end', async () => {
    const tags = Array.from({ length: 10_000 }, (_, at) => `t${String(at).padStart(6, '0')}`);
    const pages = { endless: false };
    faults.decide = ({ path }) => {
      if (!path.includes('/tags/list')) return undefined;
      const last = new URL(path, 'http://x').searchParams.get('last');
      const from = last === null ? 0 : pages.endless ? Number(last) : tags.indexOf(last) + 1;
      const page = pages.endless ? tags.slice(0, 1000) : tags.slice(from, from + 1000);
      const next = pages.endless ? String(from + 1) : page.at(-1);
      const hasMore = pages.endless || from + page.length < tags.length;
      const link = { link: `</v2/team/web/tags/list?n=1000&last=${next}>; rel="next"` };
      return { kind: 'status', status: 200, headers: hasMore ? link : {}, body: JSON.stringify({ tags: page }) };
    };
    const got: string[] = [];
    let path: string | undefined = `/v2/${name()}/tags/list?n=3000`;
    while (path !== undefined) {
      const answer = await ask(path);
      const page = (JSON.parse(answer.body.toString()) as { tags: string[] }).tags;
      expect(page.length).toBeLessThanOrEqual(3000);
      got.push(...page);
      path = /^<([^>]*)>/.exec(String(answer.headers['link'] ?? ''))?.[1];
    }
    expect(got).toEqual(tags);
    const repository = `${faults.address}/team/web`;
    const request = { repository, credentials: undefined };
    expect((await proxy.client.listTags(request, { deadlineMs: 60_000 })).tags).toHaveLength(10_000);
    pages.endless = true;
    await expect(proxy.client.listTags(request, { deadlineMs: 60_000 })).rejects.toMatchObject({
      kind: 'internal',
      message: 'team/web has too many tags to list (more than 100000)',
    });
  });

  it('lists tags in pages, and referrers', async () => {
    const tags = async (query: string) => {
      const answer = await ask(`/v2/${name()}/tags/list${query}`);
      const body = JSON.parse(answer.body.toString()) as { name: string; tags: string[] };
      return { ...body, link: answer.headers['link'] };
    };
    expect(await tags('')).toMatchObject({ name: name(), tags: ['a', 'b', 'c', 'latest'] });
    const first = await tags('?n=2');
    expect(first).toMatchObject({ tags: ['a', 'b'], link: `</v2/${name()}/tags/list?n=2&last=b>; rel="next"` });
    expect(await tags('?n=2&last=b')).toMatchObject({ tags: ['c', 'latest'], link: undefined });
    expect(await tags('?n=0')).toMatchObject({ tags: [], link: undefined });
    expect(code(await ask(`/v2/${name()}/tags/list?n=x`))).toBe('PAGINATION_NUMBER_INVALID');

    const index = { schemaVersion: 2, manifests: [{ artifactType: 'a/b', digest: 'x' }, { artifactType: 'c/d' }] };
    faults.decide = ({ path }) =>
      path.includes('/referrers/') ? { kind: 'status', status: 200, body: JSON.stringify(index) } : undefined;
    const referrers = (query = '') => ask(`/v2/${name()}/referrers/${image.manifestDigest}${query}`);
    expect(JSON.parse((await referrers()).body.toString())).toMatchObject({ manifests: index.manifests });
    const filtered = await referrers('?artifactType=c%2Fd');
    expect(filtered.headers['oci-filters-applied']).toBe('artifactType');
    expect(JSON.parse(filtered.body.toString())).toMatchObject({ manifests: [{ artifactType: 'c/d' }] });
    // A registry without that API, and nothing under the tag that stands for it.
    faults.decide = () => undefined;
    expect(JSON.parse((await referrers()).body.toString())).toMatchObject({ schemaVersion: 2, manifests: [] });
  });

  it("passes credentials on, and asks for them in the registry's place", async () => {
    const { authorization } = basic('alice:wonder');
    faults.decide = (seen) =>
      seen.authorization === authorization
        ? undefined
        : { kind: 'status', status: 401, headers: { 'www-authenticate': 'Basic realm="x"' } };
    const path = `/v2/${name()}/blobs/${layer().digest}`;
    const refused = await ask(path);
    const challenge = `Bearer realm="http://127.0.0.1:${serve.port}/token",service="flotilla"`;
    expect(refused).toMatchObject({ status: 401, headers: { 'www-authenticate': challenge } });
    expect(code(refused)).toBe('UNAUTHORIZED');
    expect((await ask(path, { headers: basic('alice:wonder') })).status).toBe(200);
    // As stock clients do: a pass for the credentials, or for nobody.
    const pass = async (headers = {}) => {
      const answer = await ask('/token?service=flotilla&scope=repository:x:pull', { headers });
      const { token } = JSON.parse(answer.body.toString()) as { token: string };
      expect(Buffer.from(token, 'base64url').toString('latin1')).not.toContain('wonder');
      return { authorization: `Bearer ${token}` };
    };
    expect(await ask('/v2/')).toMatchObject({ status: 401, headers: { 'www-authenticate': challenge } });
    expect((await ask('/v2/', { headers: await pass() })).status).toBe(200);
    expect((await ask(path, { headers: await pass(basic('alice:wonder')) })).status).toBe(200);
    expect((await ask(path, { headers: await pass() })).status).toBe(401);
    expect((await ask('/v2/', { headers: { authorization: 'Bearer x' } })).status).toBe(401);
    // It is in the cache now, and still not for everybody.
    expect((await ask(path)).status).toBe(401);
    expect((await ask(path, { method: 'HEAD', headers: basic('bob:x') })).status).toBe(401);
  });

  it.each([
    ['404 of a manifest', `manifests/none`, undefined, 404, 'MANIFEST_UNKNOWN'],
    ['404 of a blob', `blobs/sha256:${'0'.repeat(64)}`, undefined, 404, 'BLOB_UNKNOWN'],
    ['403', 'manifests/latest', { kind: 'status' as const, status: 403 }, 403, 'DENIED'],
    ['500', 'manifests/latest', { kind: 'status' as const, status: 500 }, 502, 'UNAVAILABLE'],
    [
      '429',
      'manifests/latest',
      { kind: 'status' as const, status: 429, headers: { 'retry-after': '7' } },
      429,
      'TOOMANYREQUESTS',
    ],
    ['other bytes', `blobs/DIGEST`, { kind: 'corrupt' as const, atByte: 1000 }, 502, 'DIGEST_INVALID'],
  ])('says in OCI form: %s', async (_what, path, fault, status, wanted) => {
    faults.decide = ({ path: seen }) => (seen === '/v2/' ? undefined : fault);
    const answer = await ask(`/v2/${name()}/${path.replace('DIGEST', layer().digest)}`);
    expect(answer.status).toBe(status);
    expect(code(answer)).toBe(wanted);
    if (status === 429) expect(answer.headers['retry-after']).toBe('7');
  });

  it('is read only, and not for web pages', async () => {
    for (const method of ['POST', 'PUT', 'PATCH', 'DELETE']) {
      const answer = await ask(`/v2/${name()}/blobs/uploads/`, { method });
      expect(answer).toMatchObject({ status: 405, headers: { allow: 'GET, HEAD' } });
      expect(code(answer)).toBe('UNSUPPORTED');
    }
    expect((await ask('/v2/', { headers: { origin: 'http://evil.test' } })).status).toBe(403);
    expect((await ask('/v2/', { headers: { 'sec-fetch-site': 'same-origin' } })).status).toBe(403);
    expect(code(await ask('/v2/..%2f..%2fetc/manifests/passwd'))).toBe('NAME_INVALID');
  });

  it('says in an outage that the cache answered', async () => {
    await ask(`/v2/${name()}/manifests/latest`);
    faults.decide = () => ({ kind: 'status', status: 503 });
    const answer = await ask(`/v2/${name()}/manifests/latest`);
    expect(answer.status).toBe(200);
    expect(answer.headers.warning).toMatch(/^299 - "WARNING: .* using the cached one of/);
  });

  it('keeps pace with its reader and lets go when that leaves', async () => {
    faults.decide = ({ path }) => (path.includes('/blobs/') ? { kind: 'stall', afterBytes: 2_000_000 } : undefined);
    const sent = httpRequest({ host: '127.0.0.1', port: serve.port, path: `/v2/${name()}/blobs/${layer().digest}` });
    sent.on('error', () => undefined);
    sent.end();
    await waitFor(() => faults.seen.some(({ path }) => path.includes('/blobs/')), { what: 'the transfer' });
    sent.destroy();
    const usage = () => proxy.client.getCacheUsage({}, { deadlineMs: 5_000 });
    // Nobody waits for it any more: it is a leftover.
    await waitFor(async () => (await usage()).partialBlobs === 1n, { what: 'the transfer to end' });
    faults.decide = () => undefined;
    expect((await ask(`/v2/${name()}/blobs/${layer().digest}`)).body.equals(layer().blob)).toBe(true);
  });

  it('is a mirror for another engine', async () => {
    const certs = join(root.path, 'second/certs.d/registry.test');
    mkdirSync(certs, { recursive: true });
    writeFileSync(
      join(certs, 'hosts.toml'),
      `[host."http://127.0.0.1:${serve.port}"]\ncapabilities = ["pull", "resolve"]`,
    );
    const own = join(root.path, 'certs.d/registry.test');
    mkdirSync(own, { recursive: true });
    writeFileSync(join(own, 'hosts.toml'), `server = "http://${faults.address}"`);
    await using second = await startProxy(join(root.path, 'second'));
    const repository = 'registry.test/team/web';
    const asked = { repository, reference: 'latest', credentials: undefined };
    expect((await second.client.resolveManifest(asked, { deadlineMs: 10_000 })).digest).toBe(image.manifestDigest);
    const fetched = proto.FetchBlobRequest.fromPartial({ repository, digest: layer().digest, stream: true });
    expect((await fetchAll(second.client.fetchBlob(fetched))).data.equals(layer().blob)).toBe(true);
  });

  it('serves a hundred readers at once', async () => {
    const answers = await Promise.all(
      Array.from({ length: 100 }, () => ask(`/v2/${name()}/manifests/latest`, { method: 'HEAD' })),
    );
    expect(answers.every(({ status }) => status === 200)).toBe(true);
    expect(faults.seen.filter(({ path }) => path.includes('/manifests/')).length).toBeLessThan(100);
  });
});

describe('its door', () => {
  const token = 'a-long-enough-token';
  const tokenFile = (mode = 0o600, text = `${token}\n`): string => {
    const path = join(root.path, 'token');
    writeFileSync(path, text);
    chmodSync(path, mode);
    return path;
  };

  it('opens for the token only, which is not passed on', async () => {
    await proxy[Symbol.asyncDispose]();
    await start({ tokenFile: tokenFile() });
    const path = `/v2/${name()}/manifests/latest`;
    const refused = await ask(path);
    expect(refused).toMatchObject({ status: 401, headers: { 'www-authenticate': 'Basic realm="flotilla"' } });
    expect((await ask(path, { headers: basic(`x:${token}x`) })).status).toBe(401);
    expect((await ask('/v2/')).status).toBe(401);
    expect((await ask(path, { headers: basic(`anyone:${token}`) })).status).toBe(200);
    expect((await ask(path, { headers: { authorization: `Bearer ${token}` } })).status).toBe(200);
    expect(new Set(faults.seen.map(({ authorization }) => authorization))).toEqual(new Set([undefined]));
  });

  it('opens for client certificates', async () => {
    await proxy[Symbol.asyncDispose]();
    const { ca, server, client } = makeCertificates(join(root.path, 'tls'), '127.0.0.1');
    await start({ tls: { certFile: server.cert, keyFile: server.key, caFile: ca } });
    const trust = { ca: readFileSync(ca) };
    await expect(ask('/v2/', { tls: trust })).rejects.toThrow();
    const tls = { ...trust, cert: readFileSync(client.cert), key: readFileSync(client.key) };
    expect((await ask(`/v2/${name()}/manifests/latest`, { tls })).status).toBe(200);
  });

  it('does not open with files that cannot be used', async () => {
    const begin = (more: Partial<Serve>) =>
      startProxy(join(root.path, 'other'), { serve: { ...serve, port: 0, ...more } });
    await expect(begin({ tokenFile: tokenFile(0o644) })).rejects.toThrow(
      'others than its owner can read it: chmod 0600',
    );
    await expect(begin({ tokenFile: tokenFile(0o600, 'short') })).rejects.toThrow('shorter than 16 characters');
    await expect(begin({ tokenFile: join(root.path, 'none') })).rejects.toThrow('ENOENT');
    await expect(begin({ tls: { certFile: '/none', keyFile: '/none' } })).rejects.toThrow(
      'registry-listen.tls: ENOENT',
    );
    await expect(begin({ port: serve.port })).rejects.toThrow(
      `registry-listen: cannot listen on 127.0.0.1:${serve.port}`,
    );
  });
});
