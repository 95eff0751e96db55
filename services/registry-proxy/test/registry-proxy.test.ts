import { randomBytes } from 'node:crypto';
import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
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
import type { FaultProxy, FixtureImage, Registry, TempDir } from '@flotilla/testkit';
import type { registry as proto } from '@flotilla/proto';
import type { common } from '@flotilla/proto';
import { fetchAll, freePort, startProxy } from './proxy-under-test.js';
import type { ProxyUnderTest } from './proxy-under-test.js';

let scratch: TempDir;
let registry: Registry;
let faults: FaultProxy;
let image: FixtureImage;
const big = 3_000_000;

beforeAll(async () => {
  scratch = await makeTempDir('registry-proxy');
  registry = await startRegistry({ directory: join(scratch.path, 'registry'), port: await freePort() });
  image = makeImage([
    gzipLayer(plainTar([['small', Buffer.from('hello')]])),
    gzipLayer(plainTar([['big', randomBytes(big)]]), 0),
  ]);
  await registry.push(image, 'web', 'latest');
  await registry.push(image, 'other', 'v1');
});
afterAll(async () => {
  await registry[Symbol.asyncDispose]();
  await scratch[Symbol.asyncDispose]();
});

let root: TempDir;
let proxy: ProxyUnderTest;
beforeEach(async () => {
  root = await makeTempDir('registry-proxy-root');
  faults = await startFaultProxy(registry.address);
  proxy = await startProxy(root.path);
});
afterEach(async () => {
  await proxy[Symbol.asyncDispose]();
  await faults[Symbol.asyncDispose]();
  await root[Symbol.asyncDispose]();
});

const bigLayer = () => image.layers[1] ?? expect.fail('no layer');
const user = (username: string, password: string): common.RegistryCredentials => ({
  username,
  password,
  identityToken: '',
  registryToken: '',
  serverAddress: '',
});
const manifest = (repository: string, reference: string, credentials?: common.RegistryCredentials) =>
  proxy.client.resolveManifest({ repository, reference, credentials }, { deadlineMs: 30_000 });
const blob = (repository: string, options: Partial<proto.FetchBlobRequest> = {}, signal?: AbortSignal) =>
  fetchAll(
    proxy.client.fetchBlob(
      {
        repository,
        digest: bigLayer().digest,
        sizeBytes: BigInt(bigLayer().blob.length),
        credentials: undefined,
        urls: [],
        stream: false,
        follow: false,
        exchangeName: '',
        ...options,
      },
      { signal },
    ),
  );
const isBlob = ({ path }: { path: string }) => path.includes('/blobs/');

describe('ResolveManifest', () => {
  it('gives a manifest by tag and by digest', async () => {
    const byTag = await manifest(`${registry.address}/web`, 'latest');
    expect(byTag).toMatchObject({ digest: image.manifestDigest, mediaType: image.manifestType });
    expect(byTag.content.equals(image.manifestJson)).toBe(true);
    expect(await manifest(`${registry.address}/web`, image.manifestDigest)).toEqual(byTag);
  });

  it("refuses in Docker's words", async () => {
    const name = `${registry.address}/web`;
    await expect(manifest(name, 'nope')).rejects.toMatchObject({
      kind: 'notFound',
      message: `manifest for ${name}:nope not found: manifest unknown: manifest unknown`,
    });
    await expect(manifest(`${registry.address}/Web`, 'x')).rejects.toMatchObject({ kind: 'invalidArgument' });
    await expect(manifest(name, '../../x')).rejects.toMatchObject({
      kind: 'invalidArgument',
      message: 'invalid tag format',
    });
    await expect(manifest('127.0.0.1:1/web', 'latest')).rejects.toMatchObject({
      kind: 'internal',
      message: 'Get "http://127.0.0.1:1/v2/": dial tcp 127.0.0.1:1: connect: connection refused',
    });
    await expect(manifest('no-such-host.invalid/web', 'latest')).rejects.toMatchObject({
      kind: 'internal',
      message: expect.stringMatching(
        /^Get "https:\/\/no-such-host.invalid\/v2\/": dial tcp: lookup no-such-host.invalid: /,
      ) as string,
    });
  });

  it.each([
    [401, '', 'unauthenticated', 'unauthorized: authentication required'],
    [
      403,
      '{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}',
      'notFound',
      "pull access denied for ADDRESS/web, repository does not exist or may require 'docker login': denied: requested access to the resource is denied",
    ],
    [
      404,
      '{"errors":[{"code":"NAME_UNKNOWN","message":"repository name not known to registry"}]}',
      'notFound',
      'repository ADDRESS/web not found: name unknown: repository name not known to registry',
    ],
    [429, '{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down"}]}', 'internal', 'toomanyrequests: slow down'],
    [429, '', 'internal', 'toomanyrequests: too many requests'],
    [500, 'oops', 'internal', 'received unexpected HTTP status: 500 Internal Server Error'],
    [400, '{"details":"bad"}', 'internal', 'unknown: bad'],
  ])('maps status %i %s', async (status, body, kind, message) => {
    faults.decide = ({ path }) => (path.includes('/manifests/') ? { kind: 'status', status, body } : undefined);
    await expect(manifest(`${faults.address}/web`, 'latest')).rejects.toMatchObject({
      kind,
      message: message.replace('ADDRESS', faults.address),
    });
  });

  it('tries again after a passing failure', async () => {
    let failures = 2;
    faults.decide = ({ path }) =>
      path.includes('/manifests/') && failures-- > 0
        ? { kind: 'status', status: failures === 1 ? 500 : 429, headers: { 'retry-after': '0' } }
        : undefined;
    expect((await manifest(`${faults.address}/web`, 'latest')).digest).toBe(image.manifestDigest);
  });

  it('gives up on a registry that hangs', async () => {
    faults.decide = ({ path }) => (path.includes('/manifests/') ? { kind: 'hang' } : undefined);
    await expect(manifest(`${faults.address}/web`, 'latest')).rejects.toMatchObject({
      kind: 'internal',
      message: `Get "http://${faults.address}/v2/web/manifests/latest": net/http: request canceled (Client.Timeout exceeded while awaiting headers)`,
    });
  });

  it('refuses bytes that are not those of the digest', async () => {
    faults.decide = ({ path }) => (path.includes('/manifests/') ? { kind: 'corrupt', atByte: 5 } : undefined);
    await expect(manifest(`${faults.address}/web`, image.manifestDigest)).rejects.toMatchObject({
      kind: 'dataLoss',
      message: `manifest verification failed for digest ${image.manifestDigest}`,
    });
  });

  it('refuses a huge manifest', async () => {
    const server = createServer((_, response) => response.end(Buffer.alloc(5_000_000, ' '))).listen(0, '127.0.0.1');
    await once(server, 'listening');
    try {
      const { port } = server.address() as AddressInfo;
      await expect(manifest(`127.0.0.1:${port}/web`, 'latest')).rejects.toMatchObject({
        message: 'manifest of latest is larger than 4194304 bytes',
      });
    } finally {
      server.closeAllConnections();
      server.close();
    }
  });
});

describe('FetchBlob', () => {
  it('hands over a link to the verified blob', async () => {
    const { done, progress } = await blob(`${registry.address}/web`);
    expect(readFileSync(done.path).equals(bigLayer().blob)).toBe(true);
    expect(done.path.startsWith(join(root.path, 'exchange'))).toBe(true);
    expect(done.transferredBytes).toBe(BigInt(bigLayer().blob.length));
    expect(progress.at(-1)).toMatchObject({ totalBytes: BigInt(bigLayer().blob.length) });
    const again = await blob(`${registry.address}/web`);
    expect(again.done.transferredBytes).toBe(0n);
    expect(again.done.path).not.toBe(done.path);
  });

  it('streams the bytes', async () => {
    const { data } = await blob(`${registry.address}/web`, { stream: true, sizeBytes: 0n });
    expect(data.equals(bigLayer().blob)).toBe(true);
    expect(readdirSync(join(root.path, 'exchange'))).toEqual([]);
  });

  it('transfers once for many callers', async () => {
    faults.decide = (seen) => (isBlob(seen) ? { kind: 'slow', bytesPerSecond: 20_000_000 } : undefined);
    const all = await Promise.all(Array.from({ length: 8 }, () => blob(`${faults.address}/web`)));
    expect(new Set(all.map(({ done }) => done.path)).size).toBe(8);
    expect(faults.seen.filter((seen) => isBlob(seen) && seen.method === 'GET')).toHaveLength(1);
  });

  it('resumes after a cut, also in a new process', async () => {
    let cuts = 0;
    faults.decide = (seen) => (isBlob(seen) && cuts++ === 0 ? { kind: 'cut', afterBytes: 2_000_000 } : undefined);
    expect((await blob(`${faults.address}/web`)).done.transferredBytes).toBe(BigInt(bigLayer().blob.length));
    const ranges = faults.seen.filter(isBlob).map(({ range }) => range);
    expect(ranges).toHaveLength(2);
    expect(ranges[1]).toMatch(/^bytes=\d{6,}-$/);
  });

  it('keeps what an interrupted transfer brought', async () => {
    faults.decide = (seen) => (isBlob(seen) ? { kind: 'stall', afterBytes: 2_000_000 } : undefined);
    const cancel = new AbortController();
    const waiting = blob(`${faults.address}/web`, {}, cancel.signal);
    const partial = join(root.path, 'registry-proxy/blobs/partial');
    await waitFor(
      () =>
        readdirSync(partial).length === 1 &&
        readFileSync(join(partial, readdirSync(partial)[0] ?? '')).length > 500_000,
      { what: 'a partial blob' },
    );
    cancel.abort();
    await expect(waiting).rejects.toMatchObject({ kind: 'cancelled' });
    await proxy[Symbol.asyncDispose]();
    proxy = await startProxy(root.path);
    faults.decide = () => undefined;
    faults.seen.length = 0;
    const { done } = await blob(`${faults.address}/web`);
    expect(readFileSync(done.path).equals(bigLayer().blob)).toBe(true);
    expect(Number(done.transferredBytes)).toBeLessThan(2_600_000);
    expect(faults.seen.find(isBlob)?.range).toMatch(/^bytes=/);
  });

  it('starts over where the registry does not resume', async () => {
    let seenBlobs = 0;
    faults.decide = (seen) => {
      if (!isBlob(seen)) return undefined;
      return seenBlobs++ === 0 ? { kind: 'cut', afterBytes: 2_000_000 } : { kind: 'ignore-range' };
    };
    const { done } = await blob(`${faults.address}/web`);
    expect(readFileSync(done.path).equals(bigLayer().blob)).toBe(true);
  });

  it('understands 416 for a blob of unknown size that is complete already', async () => {
    const partial = join(root.path, 'registry-proxy/blobs/partial');
    writeFileSync(join(partial, bigLayer().digest.replace(':', '-')), bigLayer().blob);
    const { done } = await blob(`${faults.address}/web`, { sizeBytes: 0n });
    expect(done.transferredBytes).toBe(0n);
    expect(faults.seen.filter((seen) => isBlob(seen) && seen.method === 'GET')).toHaveLength(1);
  });

  it('throws a wrong resumed start away', async () => {
    const partial = join(root.path, 'registry-proxy/blobs/partial');
    writeFileSync(join(partial, bigLayer().digest.replace(':', '-')), randomBytes(1_000_000));
    const { done } = await blob(`${faults.address}/web`);
    expect(readFileSync(done.path).equals(bigLayer().blob)).toBe(true);
  });

  it('refuses wrong bytes and leaves nothing complete', async () => {
    faults.decide = (seen) => (isBlob(seen) ? { kind: 'corrupt', atByte: 1_234_567 } : undefined);
    await expect(blob(`${faults.address}/web`)).rejects.toMatchObject({
      kind: 'dataLoss',
      message: `filesystem layer verification failed for digest ${bigLayer().digest}`,
    });
    await expect(blob(`${faults.address}/web`, { sizeBytes: 1000n })).rejects.toMatchObject({ kind: 'dataLoss' });
    expect(readdirSync(join(root.path, 'registry-proxy/blobs/complete'))).toEqual([]);
    expect(readdirSync(join(root.path, 'exchange'))).toEqual([]);
  });

  it.each([
    ['hang', { kind: 'hang' as const }, 'Client.Timeout exceeded while awaiting headers'],
    ['stall', { kind: 'stall' as const, afterBytes: 1000 }, 'i/o timeout'],
    ['cut', { kind: 'cut' as const, afterBytes: 1000 }, 'unexpected EOF'],
    ['429', { kind: 'status' as const, status: 429 }, 'toomanyrequests: too many requests'],
    ['500', { kind: 'status' as const, status: 500 }, 'received unexpected HTTP status: 500 Internal Server Error'],
  ])(
    'gives up after its tries: %s',
    async (name, fault, message) => {
      await proxy[Symbol.asyncDispose]();
      proxy = await startProxy(root.path, { maxDownloadAttempts: 2 });
      faults.decide = (seen) => (isBlob(seen) ? fault : undefined);
      await expect(blob(`${faults.address}/web`), name).rejects.toMatchObject({
        kind: 'internal',
        message: expect.stringContaining(message) as string,
      });
      expect(faults.seen.filter(isBlob)).toHaveLength(2);
    },
    20_000,
  );

  it('says when it tries again', async () => {
    let failures = 1;
    faults.decide = (seen) => (isBlob(seen) && failures-- > 0 ? { kind: 'status', status: 503 } : undefined);
    const { progress } = await blob(`${faults.address}/web`);
    expect(progress.map(({ status }) => status)).toContain('Retrying in 1 second');
  });

  it('tells of an unknown blob', async () => {
    const digest = `sha256:${'0'.repeat(64)}`;
    await expect(blob(`${registry.address}/web`, { digest, sizeBytes: 5n })).rejects.toMatchObject({
      kind: 'notFound',
      message: 'unknown blob',
    });
  });

  it('reports a full disk', async () => {
    const small = join(root.path, 'small');
    mkdirSync(small);
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', small]);
    try {
      await using full = await startProxy(small);
      const fetching = fetchAll(
        full.client.fetchBlob({
          repository: `${registry.address}/web`,
          digest: bigLayer().digest,
          sizeBytes: BigInt(bigLayer().blob.length),
          credentials: undefined,
          urls: [],
          stream: false,
          follow: false,
          exchangeName: '',
        }),
      );
      await expect(fetching).rejects.toMatchObject({
        kind: 'internal',
        message: expect.stringContaining('no space left on device') as string,
      });
    } finally {
      execFileSync('umount', [small]);
    }
  });

  it('keeps the cache within its bound', async () => {
    await proxy[Symbol.asyncDispose]();
    proxy = await startProxy(root.path, { cacheBytes: 0 });
    const { done } = await blob(`${registry.address}/web`);
    await waitFor(() => readdirSync(join(root.path, 'registry-proxy/blobs/complete')).length === 0, {
      what: 'an empty cache',
    });
    expect(readFileSync(done.path).equals(bigLayer().blob)).toBe(true);
  });
});

describe('credentials', () => {
  const basic = `Basic ${Buffer.from('alice:wonder').toString('base64')}`;
  const wantBasic = (): void => {
    faults.decide = ({ authorization }) =>
      authorization === basic
        ? undefined
        : {
            kind: 'status',
            status: 401,
            headers: { 'www-authenticate': 'Basic realm="test"' },
            body: '{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}',
          };
  };

  it('work as basic authentication', async () => {
    wantBasic();
    const name = `${faults.address}/web`;
    expect((await manifest(name, 'latest', user('alice', 'wonder'))).digest).toBe(image.manifestDigest);
    await expect(manifest(name, 'latest')).rejects.toMatchObject({
      kind: 'unauthenticated',
      message: `Head "http://${faults.address}/v2/web/manifests/latest": no basic auth credentials`,
    });
    await expect(manifest(name, 'latest', user('alice', 'wrong'))).rejects.toMatchObject({
      kind: 'unauthenticated',
      message: 'unauthorized: authentication required',
    });
  });

  it('are asked for again before the cache answers', async () => {
    wantBasic();
    const name = `${faults.address}/web`;
    await blob(name, { credentials: user('alice', 'wonder') });
    await expect(blob(name)).rejects.toMatchObject({ kind: 'unauthenticated' });
    await expect(blob(name, { credentials: user('alice', 'wrong') })).rejects.toMatchObject({
      kind: 'unauthenticated',
    });
    expect((await blob(name, { credentials: user('alice', 'wonder') })).done.transferredBytes).toBe(0n);
  });

  it('are checked by Authenticate', async () => {
    wantBasic();
    const logIn = (password: string) =>
      proxy.client.authenticate(
        { credentials: { ...user('alice', password), serverAddress: `http://${faults.address}/v1/` } },
        { deadlineMs: 10_000 },
      );
    expect(await logIn('wonder')).toEqual({ status: 'Login Succeeded', identityToken: '' });
    await expect(logIn('wrong')).rejects.toMatchObject({
      kind: 'unauthenticated',
      message: `login attempt to http://${faults.address}/v2/ failed with status: 401 Unauthorized`,
    });
  });

  it('buy bearer tokens, which are kept', async () => {
    let tokens = 0;
    const server = createServer((request, response) => {
      const url = new URL(request.url ?? '', 'http://x');
      if (request.headers.authorization !== undefined && request.headers.authorization !== basic) {
        response.writeHead(401).end('{"details":"incorrect username or password"}');
        return;
      }
      tokens += 1;
      const who = request.headers.authorization === undefined ? 'anonymous' : 'alice';
      const body = {
        token: `${who}:${url.searchParams.get('scope') ?? ''}`,
        expires_in: 300,
        refresh_token: 'refresh',
      };
      response.end(JSON.stringify(body));
    }).listen(0, '127.0.0.1');
    await once(server, 'listening');
    const realm = `http://127.0.0.1:${(server.address() as AddressInfo).port}/token`;
    const challenge = `Bearer realm="${realm}",service="test",scope="repository:web:pull"`;
    faults.decide = ({ authorization = '' }) => {
      if (authorization.startsWith('Bearer alice:')) return undefined;
      const error = authorization === '' ? '' : ',error="insufficient_scope"';
      return { kind: 'status', status: 401, headers: { 'www-authenticate': challenge + error } };
    };
    try {
      const name = `${faults.address}/web`;
      await manifest(name, 'latest', user('alice', 'wonder'));
      await blob(name, { credentials: user('alice', 'wonder') });
      expect(tokens).toBe(1);
      await expect(manifest(name, 'latest')).rejects.toMatchObject({
        kind: 'notFound',
        message: `pull access denied for ${name}, repository does not exist or may require 'docker login': denied: requested access to the resource is denied`,
      });
      await expect(manifest(name, 'latest', user('alice', 'wrong'))).rejects.toMatchObject({
        kind: 'unauthenticated',
        message: 'unauthorized: incorrect username or password',
      });
      const login = { ...user('alice', 'wonder'), serverAddress: faults.address };
      expect((await proxy.client.authenticate({ credentials: login }, { deadlineMs: 10_000 })).identityToken).toBe(
        'refresh',
      );
    } finally {
      server.closeAllConnections();
      server.close();
    }
  });

  it('do not follow a redirect to another origin', async () => {
    const seen: (string | undefined)[] = [];
    const elsewhere = createServer((request, response) => {
      seen.push(request.headers.authorization);
      response.end(bigLayer().blob);
    }).listen(0, '127.0.0.1');
    await once(elsewhere, 'listening');
    const { port } = elsewhere.address() as AddressInfo;
    faults.decide = (request) => {
      if (request.authorization !== basic) {
        return { kind: 'status', status: 401, headers: { 'www-authenticate': 'Basic realm="test"' } };
      }
      return isBlob(request)
        ? { kind: 'status', status: 307, headers: { location: `http://127.0.0.1:${port}/blob?signature=x` } }
        : undefined;
    };
    try {
      const { done } = await blob(`${faults.address}/web`, { credentials: user('alice', 'wonder') });
      expect(readFileSync(done.path).equals(bigLayer().blob)).toBe(true);
      expect(seen).toEqual([undefined]);
    } finally {
      elsewhere.closeAllConnections();
      elsewhere.close();
    }
  });
});

describe('TLS', () => {
  it('trusts the authority in certs.d, and only that', async () => {
    const directory = join(root.path, 'tls');
    mkdirSync(directory);
    const [key, certificate] = [join(directory, 'key.pem'), join(directory, 'cert.pem')];
    const subject = ['-subj', '/CN=registry.test', '-addext', 'subjectAltName=DNS:localhost,IP:127.0.0.1'];
    execFileSync(
      'openssl',
      [
        'req',
        '-x509',
        '-newkey',
        'ec',
        '-pkeyopt',
        'ec_paramgen_curve:P-256',
        '-nodes',
        '-days',
        '2',
        '-keyout',
        key,
        '-out',
        certificate,
        ...subject,
      ],
      { stdio: 'ignore' },
    );
    const port = await freePort();
    await using secure = await startRegistry({
      directory: join(scratch.path, 'registry'),
      port,
      tls: { certificate, key },
    });
    // Loopback may show any certificate; a name that is not loopback must be known. Names of this machine resolve to loopback, so ask with verification forced.
    expect((await manifest(`${secure.address}/web`, 'latest')).digest).toBe(image.manifestDigest);
    const { HttpTransport } = await import('../src/upstream/http-transport.js');
    const options = {
      certsDir: join(root.path, 'certs.d'),
      connectTimeoutMs: 2000,
      headersTimeoutMs: 2000,
      bodyTimeoutMs: 2000,
      userAgent: 'test',
    };
    const url = new URL(`https://127.0.0.1:${port}/v2/`);
    await using strict = new HttpTransport(options);
    await expect(strict.send({ method: 'GET', url, verifyTls: true })).rejects.toThrow(
      `Get "https://127.0.0.1:${port}/v2/": tls: failed to verify certificate: x509: certificate signed by unknown authority`,
    );
    mkdirSync(join(root.path, 'certs.d', `127.0.0.1:${port}`), { recursive: true });
    writeFileSync(join(root.path, 'certs.d', `127.0.0.1:${port}`, 'ca.crt'), readFileSync(certificate));
    await strict.reset();
    const response = await strict.send({ method: 'GET', url, verifyTls: true });
    expect(response.status).toBe(200);
    await response.body.dump();
  });
});

describe('the rest', () => {
  it('inspects an image in the registry', async () => {
    const answer = await proxy.client.inspectDistribution(
      { repository: `${registry.address}/web`, reference: 'latest', credentials: undefined },
      { deadlineMs: 10_000 },
    );
    expect(answer.descriptor).toMatchObject({ digest: image.manifestDigest, mediaType: image.manifestType });
    expect(answer.platforms).toMatchObject([{ os: 'linux', architecture: 'amd64' }]);
  });

  it('passes over a mirror that fails', async () => {
    const { Endpoints } = await import('../src/upstream/endpoints.js');
    const endpoints = new Endpoints({
      mirrors: ['http://127.0.0.1:1'],
      insecureRegistries: ['10.0.0.0/8', 'plain:80'],
      certsDir: join(root.path, 'certs.d'),
    });
    expect((await endpoints.candidates('docker.io')).map(({ origin }) => origin)).toEqual([
      'http://127.0.0.1:1',
      'https://registry-1.docker.io',
    ]);
    expect(await endpoints.isInsecure('10.1.2.3:5000')).toBe(true);
    expect(await endpoints.isInsecure('192.0.2.1:5000')).toBe(false);
    expect(await endpoints.isInsecure('plain:80')).toBe(true);
    expect(await endpoints.isInsecure('[::1]:5000')).toBe(true);
    expect((await proxy.client.getRegistryConfig({}, { deadlineMs: 1000 })).insecureCidrs).toEqual([
      '127.0.0.0/8',
      '::1/128',
    ]);
  });

  it('goes on after a URL that is refused, left in the middle or no URL', async () => {
    await using page = await startFaultProxy(registry.address);
    const read = async (text: string): Promise<number> => {
      let length = 0;
      for await (const { data } of proxy.client.fetchUrl({ url: text }, {})) length += data.length;
      return length;
    };
    const layer = `http://${page.address}/v2/web/blobs/${bigLayer().digest}`;
    expect(await read(layer)).toBe(bigLayer().blob.length);
    await expect(read(`http://${page.address}/nothing`)).rejects.toThrow('Got HTTP status code >= 400: 404 Not Found');
    page.decide = () => ({ kind: 'status', status: 503, body: 'x'.repeat(100_000) });
    await expect(read(layer)).rejects.toThrow('Got HTTP status code >= 400: 503 Service Unavailable');
    page.decide = () => ({ kind: 'stall', afterBytes: 0 });
    const gone = new AbortController();
    await expect(
      (async () => {
        for await (const _ of proxy.client.fetchUrl({ url: layer }, { signal: gone.signal })) gone.abort();
      })(),
    ).rejects.toThrow();
    await expect(read(`http://%zz:secret@${page.address}/`)).rejects.toThrow('invalid URL to import from');
    await expect(read(`ftp://${page.address}/`)).rejects.toThrow('unsupported protocol scheme "ftp"');
    expect((await manifest(`${registry.address}/web`, 'latest')).digest).toBe(image.manifestDigest);
  });

  it('reads challenges', async () => {
    const { parseChallenges } = await import('../src/upstream/challenges.js');
    const [bearer, basicOne] = parseChallenges('Bearer realm="https://a/\\"t", service=x,scope="a b", Basic realm=y');
    expect([...(bearer?.parameters ?? [])]).toEqual([
      ['realm', 'https://a/"t'],
      ['service', 'x'],
      ['scope', 'a b'],
    ]);
    expect(basicOne?.scheme).toBe('basic');
    expect(parseChallenges('=,,="')).toEqual([]);
  });
});
