import { randomBytes } from 'node:crypto';
import { cpSync, mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  dockerArchive,
  gzipLayer,
  makeCertificates,
  makeImage,
  plainTar,
  startFaultProxy,
  startRegistry,
  waitFor,
  type FaultProxy,
  type FixtureImage,
  type Registry,
  type SeenRequest,
} from '@flotilla/testkit';
import { enterNamespace } from './enter-namespace.js';
import { takeRecords } from './footprint.js';
import { rawRequest } from './raw-http.js';
import { startScriptedRegistry } from './scripted-registry.js';
import { runCommand, startTestEngine, type TestEngine } from './test-engine.js';

/** hop with s3cret. */
const htpasswd = 'hop:$2y$05$abcdefghijklmnopqrstuuLK7U1u6pVRmL7L1BBM2aS35PSZnDXlK\n';

const isUpload = ({ method, path }: SeenRequest): boolean => method === 'PUT' && path.includes('/blobs/');

describe('docker push', () => {
  let t: TestEngine;
  let inside: Disposable;
  let image: FixtureImage;
  const open: AsyncDisposable[] = [];

  beforeAll(async () => {
    t = await startTestEngine();
    inside = enterNamespace(t.namespace);
    const layer = (name: string) => gzipLayer(plainTar([[name, randomBytes(40_000)]]));
    image = makeImage([layer('a'), layer('b'), layer('c')], { Cmd: ['true'] });
    await t.registry.push(image, 'base/app', '1');
    await t.ok('pull', '-q', `${t.registry.address}/base/app:1`);
  });
  afterAll(async () => {
    for (const it of open) await it[Symbol.asyncDispose]();
    inside[Symbol.dispose]();
    await t[Symbol.asyncDispose]();
  });

  const skopeo = async (...args: string[]): Promise<string> => {
    const { code, stdout, stderr } = await runCommand('skopeo', ['--insecure-policy', ...args]);
    if (code !== 0) throw new Error(`skopeo ${args.join(' ')}: ${stderr}`);
    return stdout;
  };
  const rawManifest = (reference: string, ...options: string[]): Promise<string> =>
    skopeo('inspect', '--raw', '--tls-verify=false', ...options, `docker://${reference}`);
  const registryWith = async (options: Parameters<typeof startRegistry>[0]): Promise<Registry> => {
    const registry = await startRegistry({ namespace: t.namespace, ...options });
    open.push(registry);
    return registry;
  };
  const proxied = async (): Promise<FaultProxy> => {
    const proxy = await startFaultProxy(t.registry.address);
    open.push(proxy);
    return proxy;
  };
  const layerLines = (output: string): string[] => output.split('\n').filter((line) => /^[0-9a-f]{12}: /.test(line));

  it('sends what was pulled byte for byte, as the CLI shows it', async () => {
    const other = await registryWith({ directory: `${t.directory}/other`, port: 5091 });
    const name = `${other.address}/copy`;
    await t.ok('tag', `${t.registry.address}/base/app:1`, `${name}:2`);
    const out = await t.ok('push', `${name}:2`);
    const lines = out.split('\n');
    expect(lines[0]).toBe(`The push refers to repository [${name}]`);
    for (const { diffId } of image.layers) {
      const steps = lines.filter((line) => line.startsWith(`${diffId.slice(7, 19)}: `));
      expect(steps[0]).toContain('Preparing');
      expect(steps.at(-1)).toContain('Pushed');
    }
    expect(lines.at(-1)).toBe(`2: digest: ${image.manifestDigest} size: ${image.manifestJson.length}`);
    expect(await rawManifest(`${name}:2`)).toBe(image.manifestJson.toString());
    expect(await t.ok('inspect', '-f', '{{json .RepoDigests}}', `${name}:2`)).toContain(
      `${name}@${image.manifestDigest}`,
    );
    const again = layerLines(await t.ok('push', `${name}:2`)).filter((line) => !line.includes('Preparing'));
    expect(again).toHaveLength(3);
    for (const line of again) expect(line).toContain('Layer already exists');
    mkdirSync(`${t.directory}/skopeo`);
    await skopeo('copy', '--src-tls-verify=false', `docker://${name}:2`, `oci:${t.directory}/skopeo:x`);
    expect(readdirSync(`${t.directory}/skopeo/blobs/sha256`).length).toBeGreaterThanOrEqual(5);
  });

  it('mounts layers from another repository of the registry', async () => {
    const proxy = await proxied();
    await t.ok('pull', '-q', `${proxy.address}/base/app:1`);
    await t.ok('tag', `${proxy.address}/base/app:1`, `${proxy.address}/mounted`);
    const out = await t.ok('push', `${proxy.address}/mounted`);
    expect(layerLines(out).filter((line) => line.includes('Mounted from base/app'))).toHaveLength(3);
    // The configuration alone.
    expect(proxy.seen.filter(isUpload)).toHaveLength(1);
    expect(await rawManifest(`${proxy.address}/mounted:latest`)).toBe(image.manifestJson.toString());
  });

  it('pushes all tags, and images that came without a manifest', async () => {
    const name = `${t.registry.address}/loaded`;
    writeFileSync(`${t.directory}/app.tar`, dockerArchive(image, [`${name}:a`, `${name}:b`]));
    await t.ok('rmi', '-f', image.id);
    await t.ok('load', '-i', `${t.directory}/app.tar`);
    const out = await t.ok('push', '-a', name);
    expect(out).toMatch(/^a: digest: sha256:/m);
    expect(out).toMatch(/^b: digest: sha256:/m);
    const inspected = JSON.parse(await skopeo('inspect', '--tls-verify=false', `docker://${name}:b`)) as {
      RepoTags: string[];
      Layers: string[];
    };
    expect(inspected.RepoTags.sort()).toEqual(['a', 'b']);
    expect(inspected.Layers).toHaveLength(3);
    await t.ok('rmi', `${name}:a`, `${name}:b`);
    await t.ok('pull', '-q', `${name}:b`);
    expect(await t.ok('inspect', '-f', '{{.Id}}', `${name}:b`)).toBe(image.id);
    await t.ok('tag', `${name}:b`, 'app:kept');
  });

  it('logs in, is refused without, and logs out', async () => {
    const directory = `${t.directory}/basic`;
    const { address } = await registryWith({ directory, port: 5092, htpasswd });
    await t.ok('tag', 'app:kept', `${address}/private`);
    const refused = await t.docker(['push', `${address}/private`]);
    expect(refused).toMatchObject({ code: 1, stderr: 'no basic auth credentials\n' });
    expect(refused.stdout).toContain(`The push refers to repository [${address}/private]`);
    const wrong = await t.docker(['login', '-u', 'hop', '--password-stdin', address], { input: 'wrong' });
    expect(wrong.code).toBe(1);
    expect(wrong.stderr).toContain(`login attempt to http://${address}/v2/ failed with status: 401 Unauthorized`);
    expect((await t.docker(['login', '-u', 'hop', '--password-stdin', address], { input: 's3cret' })).code).toBe(0);
    await t.ok('push', `${address}/private`);
    expect(await rawManifest(`${address}/private`, '--creds=hop:s3cret')).toContain('"schemaVersion":2');
    await t.ok('logout', address);
    expect((await t.docker(['push', `${address}/private`])).stderr).toBe('no basic auth credentials\n');
  });

  it('shows its certificate to a registry that asks for one', async () => {
    const directory = `${t.directory}/mutual`;
    const clients = makeCertificates(`${directory}/keys`, '127.0.0.1');
    const tls = { certificate: clients.server.cert, key: clients.server.key, clients };
    const { address } = await registryWith({ directory, port: 5093, tls });
    await t.ok('tag', 'app:kept', `${address}/mutual`);
    const refused = await t.docker(['push', `${address}/mutual`]);
    expect(refused.code).toBe(1);
    expect(refused.stderr).toMatch(/certificate required|bad certificate|HTTP request to an HTTPS server|400/);
    const folder = `/etc/docker/certs.d/${address}`;
    mkdirSync(folder, { recursive: true });
    try {
      cpSync(clients.ca, `${folder}/ca.crt`);
      cpSync(clients.client.cert, `${folder}/client.cert`);
      cpSync(clients.client.key, `${folder}/client.key`);
      await t.ok('push', `${address}/mutual`);
      expect(await rawManifest(`${address}/mutual`, `--cert-dir=${folder}`)).toContain('"schemaVersion":2');
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  it('refuses what it cannot push in one sentence, and keeps nothing', async () => {
    const records = await takeRecords(t);
    const denied = await proxied();
    denied.decide = ({ method }) =>
      method === 'POST'
        ? {
            kind: 'status',
            status: 403,
            body: '{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}',
          }
        : undefined;
    const refusals: [string, string][] = [
      ['nowhere/none', 'An image does not exist locally with the tag: nowhere/none'],
      [`${t.registry.address}/loaded:zz`, `tag does not exist: ${t.registry.address}/loaded:zz`],
    ];
    for (const [name, message] of refusals) {
      expect(await t.docker(['push', name])).toMatchObject({ code: 1, stderr: `${message}\n` });
    }
    expect((await t.docker(['push', 'app:kept'])).code).toBe(1);
    const platform = encodeURIComponent('{"os":"linux","architecture":"arm64"}');
    const path = `/v1.51/images/app/push?tag=kept&platform=${platform}`;
    const raw = await rawRequest(t.engine.socket, 'POST', path);
    expect(raw.status).toBe(404);
    expect(raw.body).toContain('does not match the specified platform (linux/arm64)');
    await t.ok('tag', 'app:kept', `${denied.address}/denied`);
    expect(await t.docker(['push', `${denied.address}/denied`])).toMatchObject({
      code: 1,
      stderr: 'denied: requested access to the resource is denied\n',
    });
    await t.ok('rmi', `${denied.address}/denied`);
    await records.expectUnchanged();
  });

  it('searches an index and asks a registry about an image', async () => {
    const index = await startScriptedRegistry();
    open.push(index);
    index.intercept = ({ url = '' }, response) => {
      if (!url.startsWith('/v1/search?q=app&n=')) return false;
      const found = { name: 'hop/app', description: 'An app', star_count: 7, is_official: false };
      response.end(JSON.stringify({ results: [found, { ...found, name: 'app', star_count: 90, is_official: true }] }));
      return true;
    };
    const format = ['--format', '{{.Name}} {{.StarCount}} {{.IsOfficial}}'];
    expect(await t.ok('search', ...format, `${index.address}/app`)).toBe('hop/app 7 \napp 90 [OK]');
    expect(await t.ok('search', ...format, '-f', 'stars=50', `${index.address}/app`)).toBe('app 90 [OK]');
    expect((await t.docker(['search', '-f', 'stars=x', `${index.address}/app`])).stderr).toContain(
      "invalid filter 'stars=x'",
    );
    expect((await t.docker(['search', `${t.registry.address}/app`])).stderr).toContain('Unexpected status code 404');
    const get = (path: string) => rawRequest(t.engine.socket, 'GET', `/v1.51${path}`);
    expect((await get('/images/search?term=app&limit=101')).body).toContain('is outside the range of [1, 100]');
    expect((await get('/images/search?term=app&limit=x')).status).toBe(400);
    const name = `${t.registry.address}/base/app`;
    expect((await get(`/distribution/${name}:1/json`)).json).toEqual({
      Descriptor: { mediaType: image.manifestType, digest: image.manifestDigest, size: image.manifestJson.length },
      Platforms: [{ architecture: 'amd64', os: 'linux' }],
    });
    expect(await get(`/distribution/${name}:none/json`)).toMatchObject({
      status: 404,
      json: { message: 'manifest unknown: manifest unknown' },
    });
  });

  it('goes on after cut connections and a killed registry-proxy', async () => {
    const proxy = await proxied();
    const wide = makeImage([gzipLayer(plainTar([['w', randomBytes(200_000)]]), 0), ...image.layers]);
    writeFileSync(`${t.directory}/wide.tar`, dockerArchive(wide, [`${proxy.address}/wide`]));
    await t.ok('load', '-i', `${t.directory}/wide.tar`);
    let cuts = 1;
    let isHeld = true;
    proxy.decide = (seen) => {
      if (!isUpload(seen)) return undefined;
      if (cuts-- > 0) return { kind: 'cut-request', afterBytes: 10_000 };
      return isHeld && proxy.seen.filter(isUpload).length > 4 ? { kind: 'hang' } : undefined;
    };
    const pushing = t.docker(['push', `${proxy.address}/wide`]);
    await waitFor(() => proxy.seen.filter(isUpload).length > 4, {
      what: 'uploads that were finished and one that hangs',
    });
    isHeld = false;
    const { pid } = (await t.engine.services()).find((it) => it.service === 'registry-proxy') ?? expect.fail();
    process.kill(pid, 'SIGKILL');
    const { code, stderr } = await pushing;
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(proxy.seen.filter(isUpload).length).toBeLessThanOrEqual(8);
    expect(readdirSync(`${t.engine.dataRoot}/exchange`)).toEqual([]);
    await t.ok('rmi', `${proxy.address}/wide`);
  });
});
