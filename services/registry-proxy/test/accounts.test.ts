import { randomBytes, randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { mkdirSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { common, registry as proto } from '@flotilla/proto';
import { gzipLayer, makeImage, makeTempDir, plainTar, sha256, startFaultProxy, startRegistry } from '@flotilla/testkit';
import type { FaultProxy, FixtureImage, Registry, TempDir } from '@flotilla/testkit';
import { freePort, startProxy } from './proxy-under-test.js';
import type { ProxyUnderTest } from './proxy-under-test.js';
import { startUploadRegistry } from './upload-registry.js';

const call = { deadlineMs: 20_000 };
const nobody: common.RegistryCredentials = {
  username: '',
  password: '',
  identityToken: '',
  registryToken: '',
  serverAddress: '',
};
const alice = { ...nobody, username: 'alice', password: 'wonder' };
const basic = `Basic ${Buffer.from('alice:wonder').toString('base64')}`;

let root: TempDir;
let proxy: ProxyUnderTest;
const open: AsyncDisposable[] = [];
beforeEach(async () => {
  root = await makeTempDir('accounts-root');
  proxy = await startProxy(root.path, { uploadChunkBytes: 100_000 });
});
afterEach(async () => {
  await proxy[Symbol.asyncDispose]();
  for (const it of open.splice(0)) await it[Symbol.asyncDispose]();
  await root[Symbol.asyncDispose]();
});

/** A server that answers as it is told; gives its address. */
async function serve(answer: (request: IncomingMessage, response: ServerResponse) => void): Promise<string> {
  const server = createServer(answer).listen(0, '127.0.0.1');
  await once(server, 'listening');
  open.push({
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      server.close();
      await once(server, 'close');
    },
  });
  return `127.0.0.1:${(server.address() as AddressInfo).port}`;
}

const bodyOf = async (request: IncomingMessage): Promise<URLSearchParams> => {
  const chunks: Buffer[] = [];
  for await (const chunk of request as AsyncIterable<Buffer>) chunks.push(chunk);
  return new URLSearchParams(Buffer.concat(chunks).toString());
};

describe('SearchImages', () => {
  const results = [
    { name: 'library/app', description: 'The app', star_count: 100, is_official: true, is_automated: true },
    { name: 'hop/app', description: '', star_count: 3, is_official: false },
  ];
  const seen: { url: string; authorization: string | undefined }[] = [];
  const startIndex = () =>
    serve(({ url = '', headers }, response) => {
      seen.push({ url, authorization: headers.authorization });
      response.end(JSON.stringify({ num_results: 2, query: 'app', results }));
    });
  beforeEach(() => {
    seen.length = 0;
  });
  const search = async (term: string, options: Partial<proto.SearchImagesRequest> = {}) => {
    const request = { limit: 0, credentials: undefined, isOfficial: undefined, isAutomated: undefined };
    return (await proxy.client.searchImages({ ...request, minimumStars: 0n, term, ...options }, call)).results;
  };

  it('asks the index that the term names, as who asks', async () => {
    const address = await startIndex();
    expect(await search(`${address}/app/x y`, { limit: 7, credentials: alice })).toEqual([
      { name: 'library/app', description: 'The app', starCount: 100n, isOfficial: true, isAutomated: false },
      { name: 'hop/app', description: '', starCount: 3n, isOfficial: false, isAutomated: false },
    ]);
    await search(`${address}/app`);
    expect(seen).toEqual([
      { url: '/v1/search?q=app%2Fx+y&n=7', authorization: basic },
      { url: '/v1/search?q=app&n=25', authorization: undefined },
    ]);
  });

  it('filters', async () => {
    const address = await startIndex();
    const names = async (options: Partial<proto.SearchImagesRequest>) =>
      (await search(`${address}/app`, options)).map(({ name }) => name);
    expect(await names({ isOfficial: true })).toEqual(['library/app']);
    expect(await names({ isOfficial: false })).toEqual(['hop/app']);
    expect(await names({ minimumStars: 4n })).toEqual(['library/app']);
    expect(await names({ isAutomated: false })).toHaveLength(2);
    expect(seen).toHaveLength(4);
    expect(await names({ isAutomated: true })).toEqual([]);
    expect(seen).toHaveLength(4);
  });

  it('buys a token with an identity token', async () => {
    const forms: URLSearchParams[] = [];
    const realm = await serve((request, response) => {
      void bodyOf(request).then((form) => {
        forms.push(form);
        response.end('{"access_token":"bought"}');
      });
    });
    const address = await serve(({ url = '', headers }, response) => {
      if (url === '/v2/') {
        response.writeHead(401, { 'www-authenticate': `Bearer realm="http://${realm}/token",service="s"` }).end();
      } else if (headers.authorization === 'Bearer bought') response.end('{"results":[]}');
      else response.writeHead(401).end();
    });
    expect(await search(`${address}/app`, { credentials: { ...alice, identityToken: 'mine' } })).toEqual([]);
    expect(Object.fromEntries(forms[0] ?? [])).toMatchObject({
      grant_type: 'refresh_token',
      refresh_token: 'mine',
      scope: 'registry:catalog:search',
    });
  });

  it("refuses in Docker's words", async () => {
    const missing = await serve((_, response) => response.writeHead(404).end());
    const nonsense = await serve((_, response) => response.end('<html>'));
    await expect(search(`${missing}/app`)).rejects.toMatchObject({
      kind: 'internal',
      message: 'Unexpected status code 404',
    });
    await expect(search(`${nonsense}/app`)).rejects.toMatchObject({
      kind: 'internal',
      message: expect.stringContaining('error decoding registry search results: ') as string,
    });
    const refusals: [string, number, string][] = [
      ['http://x/app', 1, 'invalid repository name: repository name (http://x/app) should not have a scheme'],
      ['app', 101, 'limit 101 is outside the range of [1, 100]'],
      ['a@b:c/app', 1, 'invalid reference format'],
      ['127.0.0.1:1/app', 1, 'invalid registry endpoint "http://127.0.0.1:1/v1/". HTTPS attempt: Get '],
      ['no-such-host.invalid/app', 1, 'add `--insecure-registry no-such-host.invalid` to the daemon'],
    ];
    for (const [term, limit, message] of refusals) {
      await expect(search(term, { limit }), term).rejects.toMatchObject({
        kind: 'invalidArgument',
        message: expect.stringContaining(message) as string,
      });
    }
  });
});

describe('Authenticate', () => {
  const logIn = (credentials: common.RegistryCredentials) => proxy.client.authenticate({ credentials }, call);

  it('uses and renews tokens, and sends a registry token as it is', async () => {
    const realm = await serve((request, response) => {
      void bodyOf(request).then((form) => {
        const { searchParams } = new URL(request.url ?? '', 'http://x');
        if (request.headers.authorization === basic && searchParams.get('offline_token') === 'true') {
          response.end('{"token":"good","refresh_token":"identity"}');
        } else if (form.get('refresh_token') === 'identity') response.end('{"access_token":"good"}');
        else if (form.get('refresh_token') === 'old') {
          response.end('{"access_token":"good","refresh_token":"successor"}');
        } else response.writeHead(401).end('{"details":"incorrect username or password"}');
      });
    });
    const serverAddress = await serve(({ headers }, response) => {
      if (headers.authorization === 'Bearer good') response.end('{}');
      else {
        response.writeHead(401, { 'www-authenticate': `Bearer realm="http://${realm}/token",service="s"` }).end();
      }
    });
    expect(await logIn({ ...alice, serverAddress })).toEqual({ status: 'Login Succeeded', identityToken: 'identity' });
    expect(await logIn({ ...nobody, identityToken: 'identity', serverAddress })).toMatchObject({
      identityToken: 'identity',
    });
    expect(await logIn({ ...nobody, identityToken: 'old', serverAddress })).toMatchObject({
      identityToken: 'successor',
    });
    expect(await logIn({ ...nobody, registryToken: 'good', serverAddress })).toMatchObject({ identityToken: '' });
    const refusals: [Partial<common.RegistryCredentials>, string][] = [
      [
        { username: 'alice', password: 'wrong' },
        `Get "http://${serverAddress}/v2/": unauthorized: incorrect username or password`,
      ],
      [{ identityToken: 'gone' }, `Get "http://${serverAddress}/v2/": unauthorized: incorrect username or password`],
      [{ registryToken: 'bad' }, `login attempt to http://${serverAddress}/v2/ failed with status: 401 Unauthorized`],
    ];
    for (const [credentials, message] of refusals) {
      await expect(logIn({ ...nobody, ...credentials, serverAddress }), message).rejects.toMatchObject({
        kind: 'unauthenticated',
        message,
      });
    }
  });

  it('tells of a registry that is not there, or is none', async () => {
    const none = await serve((_, response) => response.writeHead(404).end());
    const refusals: [string, string, string][] = [
      [none, 'internal', `login attempt to http://${none}/v2/ failed with status: 404 Not Found`],
      ['127.0.0.1:1', 'internal', 'Get "http://127.0.0.1:1/v2/": dial tcp 127.0.0.1:1: connect: connection refused'],
      ['user@host', 'invalidArgument', 'unable to parse server address: "user@host"'],
      ['host:port', 'invalidArgument', 'unable to parse server address: "host:port"'],
    ];
    for (const [serverAddress, kind, message] of refusals) {
      await expect(logIn({ ...alice, serverAddress }), message).rejects.toMatchObject({ kind, message });
    }
  });

  it('is asked of the registry itself, not of a mirror', async () => {
    const [asked, spared]: string[][] = [[], []];
    const own = await serve((request, response) => {
      asked?.push(request.url ?? '');
      response.end('{}');
    });
    const mirror = await serve((request, response) => {
      spared?.push(request.url ?? '');
      response.end('{}');
    });
    const folder = join(root.path, 'certs.d', 'registry.test');
    mkdirSync(folder, { recursive: true });
    writeFileSync(join(folder, 'hosts.toml'), `server = "http://${own}"\n[host."http://${mirror}"]\n`);
    expect(await logIn({ ...alice, serverAddress: 'registry.test' })).toMatchObject({ status: 'Login Succeeded' });
    expect(asked).toEqual(['/v2/', '/v2/']);
    expect(spared).toEqual([]);
  });
});

it('a token that runs out in the middle of a push is replaced, once', async () => {
  await using registry = await startUploadRegistry();
  const scopes: string[][] = [];
  let valid = 0;
  const realm = await serve(({ url = '' }, response) => {
    scopes.push(new URL(url, 'http://x').searchParams.getAll('scope'));
    response.end(JSON.stringify({ token: String((valid += 1)), expires_in: 300 }));
  });
  let refusals = 0;
  registry.intercept = ({ method, headers }, response) => {
    if (headers.authorization === `Bearer ${valid}` && !(method === 'PATCH' && refusals++ === 1)) return false;
    response.writeHead(401, { 'www-authenticate': `Bearer realm="http://${realm}/token",service="s"` }).end();
    return true;
  };
  const bytes = randomBytes(350_000);
  const path = join(root.path, 'exchange', `push-${randomUUID()}`);
  writeFileSync(path, bytes);
  const request = {
    repository: `${registry.address}/x`,
    digest: sha256(bytes),
    sizeBytes: BigInt(bytes.length),
    credentials: alice,
    path,
    mountFrom: [`${registry.address}/y`],
  };
  let done: proto.PushedBlob | undefined;
  for await (const { event } of proxy.client.pushBlob(request)) if (event?.$case === 'done') done = event.value;
  expect(done).toMatchObject({ alreadyExists: false });
  expect(registry.blobs.get(`x ${sha256(bytes)}`)?.equals(bytes)).toBe(true);
  expect(scopes.at(0)).toEqual(['repository:x:pull,push']);
  expect(scopes).toContainEqual(['repository:x:pull,push', 'repository:y:pull']);
  registry.intercept = (_, response) => {
    response.writeHead(401, { 'www-authenticate': `Bearer realm="http://${realm}/token",service="s"` }).end();
    return true;
  };
  scopes.length = 0;
  const manifest = { mediaType: 'application/json', content: Buffer.from('{}'), reference: 'v1', credentials: alice };
  await expect(
    proxy.client.pushManifest({ repository: `${registry.address}/x`, ...manifest }, call),
  ).rejects.toMatchObject({ kind: 'unauthenticated', message: 'unauthorized: authentication required' });
  expect(scopes.length).toBeLessThanOrEqual(1);
});

describe('InspectDistribution', () => {
  let scratch: TempDir;
  let registry: Registry;
  let faults: FaultProxy;
  let image: FixtureImage;
  beforeAll(async () => {
    scratch = await makeTempDir('accounts-registry');
    registry = await startRegistry({ directory: join(scratch.path, 'registry'), port: await freePort() });
    faults = await startFaultProxy(registry.address);
    image = makeImage([gzipLayer(plainTar([['a', Buffer.from('a')]]))]);
    await registry.push(image, 'app', 'v1');
  });
  afterAll(async () => {
    await faults[Symbol.asyncDispose]();
    await registry[Symbol.asyncDispose]();
    await scratch[Symbol.asyncDispose]();
  });
  const inspect = (repository: string, reference = 'v1', credentials?: common.RegistryCredentials) =>
    proxy.client.inspectDistribution({ repository, reference, credentials }, call);

  it('describes a manifest and an index, by tag and by digest', async () => {
    const descriptor = { digest: image.manifestDigest, mediaType: image.manifestType };
    const platforms = [{ os: 'linux', architecture: 'amd64' }];
    for (const reference of ['v1', image.manifestDigest]) {
      expect(await inspect(`${registry.address}/app`, reference)).toMatchObject({
        descriptor: { ...descriptor, sizeBytes: BigInt(image.manifestJson.length) },
        platforms,
      });
    }
    const mediaType = 'application/vnd.oci.image.index.v1+json';
    const entry = { mediaType: image.manifestType, digest: image.manifestDigest, size: image.manifestJson.length };
    const both = ['amd64', 'arm64'].map((architecture) => ({ ...entry, platform: { os: 'linux', architecture } }));
    const content = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType, manifests: both }));
    const index = { mediaType, content, reference: 'both', credentials: undefined };
    await proxy.client.pushManifest({ repository: `${registry.address}/app`, ...index }, call);
    expect(await inspect(`${registry.address}/app`, 'both')).toMatchObject({
      descriptor: { digest: sha256(content), mediaType, sizeBytes: BigInt(content.length) },
      platforms: both.map(({ platform }) => platform),
    });
  });

  it("refuses in the registry's words", async () => {
    await expect(inspect(`${registry.address}/app`, 'none')).rejects.toMatchObject({
      kind: 'notFound',
      message: 'manifest unknown: manifest unknown',
    });
    faults.decide = () => ({
      kind: 'status',
      status: 403,
      body: '{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}',
    });
    await expect(inspect(`${faults.address}/app`)).rejects.toMatchObject({
      kind: 'permissionDenied',
      message: 'denied: requested access to the resource is denied',
    });
    faults.decide = ({ authorization }) =>
      authorization === basic
        ? undefined
        : { kind: 'status', status: 401, headers: { 'www-authenticate': 'Basic realm="x"' } };
    await proxy[Symbol.asyncDispose]();
    proxy = await startProxy(root.path);
    await expect(inspect(`${faults.address}/app`)).rejects.toMatchObject({
      kind: 'unauthenticated',
      message: `Head "http://${faults.address}/v2/app/manifests/v1": no basic auth credentials`,
    });
    await expect(inspect(`${faults.address}/app`, 'v1', { ...alice, password: 'wrong' })).rejects.toMatchObject({
      kind: 'unauthenticated',
      message: 'unauthorized: authentication required',
    });
    expect((await inspect(`${faults.address}/app`, 'v1', alice)).platforms).toHaveLength(1);
  });
});
