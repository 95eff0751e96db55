import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { copyFileSync, mkdirSync, writeFileSync } from 'node:fs';
import { createServer, request } from 'node:http';
import { connect as connectTcp } from 'node:net';
import type { AddressInfo } from 'node:net';
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
} from '@flotilla/testkit';
import type { FaultProxy, FixtureImage, Registry, TempDir, TestCertificates } from '@flotilla/testkit';
import { fetchAll, freePort, startProxy } from './proxy-under-test.js';
import type { ProxyUnderTest } from './proxy-under-test.js';

let scratch: TempDir;
let registry: Registry;
let secure: Registry;
let certificates: TestCertificates;
let image: FixtureImage;

beforeAll(async () => {
  scratch = await makeTempDir('registry-mirrors');
  const directory = join(scratch.path, 'registry');
  registry = await startRegistry({ directory, port: await freePort() });
  image = makeImage([gzipLayer(plainTar([['data', randomBytes(200_000)]]), 0)]);
  await registry.push(image, 'team/web', 'latest');
  certificates = makeCertificates(join(scratch.path, 'tls'), '127.0.0.1');
  const { server } = certificates;
  const tls = { certificate: server.cert, key: server.key, clients: certificates };
  secure = await startRegistry({ directory: join(scratch.path, 'secure'), port: await freePort(), tls });
  await secure.push(image, 'team/web', 'latest');
});
afterAll(async () => {
  await registry[Symbol.asyncDispose]();
  await secure[Symbol.asyncDispose]();
  await scratch[Symbol.asyncDispose]();
});

let root: TempDir;
let faults: FaultProxy;
let proxy: ProxyUnderTest;
beforeEach(async () => {
  root = await makeTempDir('registry-mirrors-root');
  faults = await startFaultProxy(registry.address);
  proxy = await startProxy(root.path);
});
afterEach(async () => {
  await proxy[Symbol.asyncDispose]();
  await faults[Symbol.asyncDispose]();
  await root[Symbol.asyncDispose]();
});

function certsDir(host: string, files: Record<string, string>): string {
  const folder = join(root.path, 'certs.d', host);
  mkdirSync(folder, { recursive: true });
  for (const [name, text] of Object.entries(files)) writeFileSync(join(folder, name), text);
  return folder;
}
const manifest = (repository: string, reference = 'latest') =>
  proxy.client.resolveManifest({ repository, reference, credentials: undefined }, { deadlineMs: 30_000 });
const blob = (repository: string, digest = image.layers[0]?.digest ?? '') =>
  fetchAll(
    proxy.client.fetchBlob({
      ...{
        repository,
        digest,
        sizeBytes: 0n,
        credentials: undefined,
        urls: [],
        stream: true,
        follow: false,
        exchangeName: '',
      },
    }),
  );

describe('mirrors', () => {
  it('are asked first, for any registry, and told which one is meant', async () => {
    certsDir('registry.test', { 'hosts.toml': `[host."http://${faults.address}"]` });
    expect((await manifest('registry.test/team/web')).digest).toBe(image.manifestDigest);
    expect((await blob('registry.test/team/web')).data.equals(image.layers[0]?.blob ?? Buffer.alloc(0))).toBe(true);
    expect(faults.seen.map(({ path }) => path)).toEqual([
      '/v2/?ns=registry.test',
      '/v2/team/web/manifests/latest?ns=registry.test',
      `/v2/team/web/blobs/${image.layers[0]?.digest ?? ''}?ns=registry.test`,
    ]);
  });

  it.each([
    ['breaks', { kind: 'status' as const, status: 500 }],
    ['refuses', { kind: 'status' as const, status: 403 }],
    ['does not have it', { kind: 'status' as const, status: 404 }],
    ['cuts the connection', { kind: 'cut' as const, afterBytes: 10 }],
    ['gives other bytes', { kind: 'corrupt' as const, atByte: 3 }],
  ])('are passed over where one %s', async (_what, fault) => {
    faults.decide = ({ path }) => (path.includes('/manifests/') ? fault : undefined);
    const good = `[host."http://${faults.address}"]\n[host."http://${registry.address}"]`;
    certsDir('registry.test', { 'hosts.toml': good });
    const target = 'kind' in fault && fault.kind === 'corrupt' ? image.manifestDigest : 'latest';
    expect((await manifest('registry.test/team/web', target)).digest).toBe(image.manifestDigest);
  });

  it('that keep failing are no longer waited for', async () => {
    faults.decide = ({ path }) => (path.includes('/manifests/') ? { kind: 'status', status: 503 } : undefined);
    certsDir('registry.test', {
      'hosts.toml': `[host."http://${faults.address}"]\n[host."http://${registry.address}"]`,
    });
    for (let i = 0; i < 6; i += 1) await manifest('registry.test/team/web');
    expect(faults.seen.filter(({ path }) => path.includes('/manifests/'))).toHaveLength(3);
  });

  it('get no credentials', async () => {
    certsDir('registry.test', { 'hosts.toml': `[host."http://${faults.address}"]` });
    const credentials = { username: 'a', password: 'b', identityToken: '', registryToken: '', serverAddress: '' };
    faults.decide = ({ path, authorization }) =>
      path.includes('/manifests/') && authorization === undefined
        ? { kind: 'status', status: 401, headers: { 'www-authenticate': 'Basic realm="x"' } }
        : undefined;
    const asked = proxy.client.resolveManifest(
      { repository: 'registry.test/team/web', reference: 'latest', credentials },
      { deadlineMs: 30_000 },
    );
    await expect(asked).rejects.toThrow();
    expect(faults.seen.map(({ authorization }) => authorization)).not.toContain(
      `Basic ${Buffer.from('a:b').toString('base64')}`,
    );
  });

  it('have paths of their own', async () => {
    certsDir('registry.test', { 'hosts.toml': `[host."http://${faults.address}/some/where"]\noverride_path = true` });
    await expect(manifest('registry.test/team/web')).rejects.toThrow();
    expect(faults.seen.map(({ path }) => path)).toContain('/some/where/team/web/manifests/latest?ns=registry.test');
  });

  it('a malformed file is told of with its name', async () => {
    certsDir('registry.test', { 'hosts.toml': 'server = 1' });
    await expect(manifest('registry.test/team/web')).rejects.toMatchObject({
      kind: 'invalidArgument',
      message: `${join(root.path, 'certs.d/registry.test/hosts.toml')}: server: expected a URL`,
    });
  });
});

describe('client certificates', () => {
  it('come from certs.d', async () => {
    // A registry of this machine may speak plain HTTP: that was tried last.
    await expect(manifest(`${secure.address}/team/web`)).rejects.toThrow('400 Bad Request');
    const folder = certsDir(secure.address, {});
    copyFileSync(certificates.ca, join(folder, 'ca.crt'));
    copyFileSync(certificates.client.cert, join(folder, 'client.cert'));
    await expect(manifest(`${secure.address}/team/web`)).rejects.toMatchObject({
      kind: 'invalidArgument',
      message: 'missing key client.key for client certificate client.cert. CA certificates must use the extension .crt',
    });
    copyFileSync(certificates.client.key, join(folder, 'client.key'));
    expect((await manifest(`${secure.address}/team/web`)).digest).toBe(image.manifestDigest);
  });

  it('come from hosts.toml, whose authority is the one that counts', async () => {
    const { ca, client } = certificates;
    const host = (authority: string) =>
      `server = "https://${secure.address}"\nca = "${authority}"\nclient = [["${client.cert}", "${client.key}"]]`;
    certsDir('registry.test', { 'hosts.toml': host(ca) });
    expect((await manifest('registry.test/team/web')).digest).toBe(image.manifestDigest);
    // Another authority: the same address is not trusted any more.
    const other = makeCertificates(join(root.path, 'other'), '127.0.0.1');
    certsDir('registry.test', { 'hosts.toml': host(other.ca) });
    await expect(manifest('registry.test/team/web')).rejects.toThrow(/x509: certificate signed by unknown authority/);
    certsDir('registry.test', { 'hosts.toml': `${host(other.ca)}\nskip_verify = true` });
    expect((await manifest('registry.test/team/web')).digest).toBe(image.manifestDigest);
  });
});

describe('HTTP proxies', () => {
  /** Passes on plain requests and tunnels, to the registry that the name stands for. */
  async function startHttpProxy(): Promise<AsyncDisposable & { url: string; seen: string[] }> {
    const seen: string[] = [];
    const target = (host = '') => (host.startsWith('secure.test') ? secure.address : registry.address).split(':');
    const server = createServer((incoming, outgoing) => {
      seen.push(`${incoming.method ?? ''} ${incoming.url ?? ''}`);
      const url = new URL(incoming.url ?? '');
      const [host, port] = target(url.host);
      const { headers } = incoming;
      const passed = request({ host, port, path: url.pathname, headers, agent: false }, (response) => {
        outgoing.writeHead(response.statusCode ?? 502, response.headers);
        response.pipe(outgoing);
      });
      passed.end();
    });
    server.on('connect', (incoming, socket) => {
      seen.push(`CONNECT ${incoming.url ?? ''} ${incoming.headers['proxy-authorization'] ?? ''}`.trim());
      const [host = '', port] = target(incoming.url);
      const passed = connectTcp(Number(port), host, () => {
        socket.write('HTTP/1.1 200 OK\r\n\r\n');
        passed.pipe(socket).pipe(passed);
      });
      passed.on('error', () => socket.destroy());
      socket.on('error', () => passed.destroy());
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    return {
      url: `127.0.0.1:${(server.address() as AddressInfo).port}`,
      seen,
      async [Symbol.asyncDispose]() {
        server.closeAllConnections();
        server.close();
        await once(server, 'close');
      },
    };
  }

  it('carry requests and TLS, but not those to loopback or excepted; and change with a reload', async () => {
    await using http = await startHttpProxy();
    const proxies = { httpProxy: `http://${http.url}`, httpsProxy: `http://me:secret@${http.url}`, noProxy: '' };
    const plain = { insecureRegistries: ['plain.test'] };
    await proxy.reload({ ...plain, proxies });
    const { ca, client } = certificates;
    certsDir('plain.test', { 'hosts.toml': 'server = "http://plain.test"' });
    // The certificate is for the address only.
    certsDir('secure.test', {
      'hosts.toml': `server = "https://secure.test"\nskip_verify = true\nca = "${ca}"\nclient = [["${client.cert}", "${client.key}"]]`,
    });
    expect((await manifest('plain.test/team/web')).digest).toBe(image.manifestDigest);
    expect((await manifest('secure.test/team/web')).digest).toBe(image.manifestDigest);
    expect((await manifest(`${registry.address}/team/web`)).digest).toBe(image.manifestDigest);
    expect(http.seen).toEqual([
      'GET http://plain.test/v2/',
      'GET http://plain.test/v2/team/web/manifests/latest',
      `CONNECT secure.test:443 Basic ${Buffer.from('me:secret').toString('base64')}`,
    ]);
    await proxy.reload({ ...plain, proxies: { ...proxies, noProxy: '.test' } });
    await expect(manifest('secure.test/team/web', 'uncached')).rejects.toThrow(/lookup secure.test/);
    await proxy.reload({ ...plain, proxies: { ...proxies, httpProxy: 'http://127.0.0.1:1' } });
    await expect(manifest('plain.test/team/web', 'uncached')).rejects.toMatchObject({
      message: 'Get "http://plain.test/v2/": proxyconnect tcp: dial tcp 127.0.0.1:1: connect: connection refused',
    });
  });
});

describe('a reload', () => {
  it('changes mirrors, insecure registries and the number of tries at once', async () => {
    await expect(manifest('docker.io/team/web')).rejects.toThrow();
    await proxy.reload({ mirrors: [`http://${faults.address}`], maxDownloadAttempts: 2 });
    expect((await manifest('docker.io/team/web')).digest).toBe(image.manifestDigest);
    faults.decide = ({ path }) => (path.includes('/blobs/') ? { kind: 'status', status: 500 } : undefined);
    await expect(blob(`${faults.address}/team/web`)).rejects.toThrow();
    expect(faults.seen.filter(({ path }) => path.includes('/blobs/'))).toHaveLength(2);
    await proxy.reload({ insecureRegistries: ['10.0.0.0/8', 'somewhere.test'] });
    const info = await proxy.client.getRegistryConfig({}, { deadlineMs: 5_000 });
    expect(info.insecureCidrs).toContain('10.0.0.0/8');
    expect(info.indexes.map(({ name, secure: isSecure }) => [name, isSecure])).toEqual([
      ['docker.io', true],
      ['somewhere.test', false],
    ]);
  });

  it('is refused whole when a key is wrong', async () => {
    await proxy.reload({ mirrors: [`http://${faults.address}`] });
    const bad = { mirrors: [], insecureRegistries: ['300.0.0.0/8'] };
    await expect(proxy.reload(bad)).rejects.toMatchObject({
      kind: 'invalidArgument',
      message: 'insecure registry 300.0.0.0/8 is not valid: invalid CIDR address',
    });
    const proxies = { httpProxy: 'ftp://x', httpsProxy: '', noProxy: '' };
    await expect(proxy.reload({ mirrors: [], proxies })).rejects.toMatchObject({
      message: 'proxies.http-proxy: expected an http(s) URL',
    });
    expect((await proxy.client.getRegistryConfig({}, { deadlineMs: 5_000 })).mirrors).toEqual([
      `http://${faults.address}/`,
    ]);
  });
});
