import { randomBytes } from 'node:crypto';
import { mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  dockerArchive,
  gzipLayer,
  makeImage,
  plainTar,
  startFaultProxy,
  startRegistry,
  waitFor,
  type FixtureImage,
} from '@flotilla/testkit';
import { enterNamespace } from './enter-namespace.js';
import { rawRequest } from './raw-http.js';
import { runCommand, startTestEngine, type TestEngine } from './test-engine.js';

/** hop with s3cret. */
const htpasswd = 'hop:$2y$05$abcdefghijklmnopqrstuuLK7U1u6pVRmL7L1BBM2aS35PSZnDXlK\n';
const listener = '127.0.0.1:5005';

describe('the registry cache', () => {
  let t: TestEngine;
  let inside: Disposable;
  beforeAll(async () => {
    t = await startTestEngine({ pull: false, daemonJson: { 'registry-listen': { address: listener } } });
    inside = enterNamespace(t.namespace);
  });
  afterAll(async () => {
    inside[Symbol.dispose]();
    await t[Symbol.asyncDispose]();
  });

  const randomImage = (bytes: number): FixtureImage =>
    makeImage([gzipLayer(plainTar([['data', randomBytes(bytes)]]), 0)]);
  const skopeo = (...args: string[]) => runCommand('skopeo', ['--insecure-policy', ...args]);
  const cached = (): number => readdirSync(`${t.engine.dataRoot}/registry-proxy/blobs/complete`).length;

  it('answers when the registry is gone, and says so', async () => {
    const image = randomImage(300_000);
    const name = '127.0.0.1:5002/app';
    {
      await using registry = await startRegistry({
        ...{ directory: `${t.directory}/gone`, port: 5002, namespace: t.namespace },
      });
      await registry.push(image, 'app', 'latest');
      expect(await t.ok('pull', name)).not.toContain('WARNING');
    }
    await t.ok('rmi', name);
    const again = await t.ok('pull', name);
    expect(again).toMatch(
      /^WARNING: 127\.0\.0\.1:5002 does not answer for latest \(.*connection refused\): using the cached one of \S+Z$/m,
    );
    expect(again).toContain(`Digest: ${image.manifestDigest}`);
    expect(again).toContain('Status: Downloaded newer image');
    expect(await t.ok('inspect', '-f', '{{.Id}}', name)).toBe(image.id);
    const asked = await rawRequest(t.engine.socket, 'GET', `/v1.51/distribution/${name}/json`);
    expect(asked).toMatchObject({ status: 200, json: { Descriptor: { digest: image.manifestDigest } } });
    expect(asked.headers['warning']).toMatch(
      /^110 - "WARNING: 127\.0\.0\.1:5002 does not answer for latest \(.*connection refused\): using the cached one of \S+Z"$/,
    );
    const unknown = await t.docker(['pull', `${name}:other`]);
    expect(unknown).toMatchObject({ code: 1, stderr: expect.stringContaining('connection refused') as string });
    await t.ok('rmi', name);
  });

  it('gives private images in an outage only to those who fetched them', async () => {
    const image = randomImage(200_000);
    const address = '127.0.0.1:5003';
    const name = `${address}/secret`;
    const logIn = (user: string, password: string): void => {
      mkdirSync(`${t.directory}/docker-config`, { recursive: true });
      const auth = Buffer.from(`${user}:${password}`).toString('base64');
      const auths = user === '' ? {} : { [address]: { auth } };
      writeFileSync(`${t.directory}/docker-config/config.json`, JSON.stringify({ auths }));
    };
    {
      const options = { directory: `${t.directory}/private`, port: 5003, namespace: t.namespace, htpasswd };
      await using _registry = await startRegistry(options);
      writeFileSync(`${t.directory}/secret.tar`, dockerArchive(image, ['secret:1']));
      const source = `docker-archive:${t.directory}/secret.tar`;
      const copy = ['--dest-tls-verify=false', '--dest-creds=hop:s3cret', source, `docker://${name}:latest`];
      expect(await skopeo('copy', ...copy)).toMatchObject({ code: 0 });
      logIn('hop', 's3cret');
      await t.ok('pull', name);
      await t.ok('rmi', name);
    }
    for (const [user, password] of [
      ['', ''],
      ['hop', 'guess'],
      ['eve', 's3cret'],
    ] as const) {
      logIn(user, password);
      const refused = await t.docker(['pull', name]);
      expect(refused.code).toBe(1);
      expect(refused.stderr).toMatch(/connection refused|no basic auth credentials/);
    }
    logIn('hop', 's3cret');
    expect(await t.ok('pull', name)).toContain('WARNING: 127.0.0.1:5003 does not answer');
    await t.ok('rmi', name);
    logIn('', '');
    expect(readFileSync(t.engine.logFile, 'utf8')).not.toMatch(/s3cret|guess|aG9wOnMzY3JldA/);
  });

  it('serves other engines, also in an outage', async () => {
    const at = `docker://${listener}`;
    const copy = (from: string, to: string) =>
      skopeo('copy', '--src-tls-verify=false', `${at}/${from}`, `dir:${t.directory}/${to}`);
    expect(await copy('127.0.0.1__5000/busybox:latest', 'busybox')).toMatchObject({ code: 0 });
    const manifest = readFileSync(`${t.directory}/busybox/manifest.json`);
    expect(manifest.equals(t.busybox.manifestJson)).toBe(true);
    const tags = await skopeo('list-tags', '--tls-verify=false', `${at}/127.0.0.1__5000/busybox`);
    expect(JSON.parse(tags.stdout)).toMatchObject({ Tags: ['latest'] });
    // From the registry of the first test, which is gone.
    expect(await copy('127.0.0.1__5002/app:latest', 'app')).toMatchObject({ code: 0 });
    const refused = await copy('127.0.0.1__5003/secret:latest', 'secret');
    expect(refused.code).not.toBe(0);
    // With the credentials of who fetched it.
    const allowed = ['--src-tls-verify=false', '--src-creds=hop:s3cret', `${at}/127.0.0.1__5003/secret:latest`];
    expect(await skopeo('copy', ...allowed, `dir:${t.directory}/secret`)).toMatchObject({ code: 0 });
  });

  it('is part of what images take, and goes with them when pruned', async () => {
    interface Usage {
      LayersSize: number;
    }
    const layersSize = async (): Promise<number> => {
      const args = ['-s', '--unix-socket', t.engine.socket, 'http://localhost/v1.51/system/df?type=image'];
      return (JSON.parse((await runCommand('curl', args)).stdout) as Usage).LayersSize;
    };
    await using faults = await startFaultProxy(t.registry.address);
    const big = randomImage(2_000_000);
    await t.registry.push(big, 'big', 'latest');
    faults.decide = ({ path }) =>
      path.endsWith(big.layers[0]?.digest ?? '') ? { kind: 'stall', afterBytes: 1_500_000 } : undefined;
    const before = await layersSize();
    const leave = new AbortController();
    const pulling = t.docker(['pull', `${faults.address}/big`], { signal: leave.signal }).catch(() => undefined);
    const partial = `${t.engine.dataRoot}/registry-proxy/blobs/partial`;
    await waitFor(() => readdirSync(partial).length === 1, { what: 'the layer to come' });
    await waitFor(() => readFileSync(`${partial}/${readdirSync(partial)[0] ?? ''}`).length > 1_000_000, {
      what: 'most of it',
    });
    leave.abort();
    await pulling;
    await waitFor(async () => (await layersSize()) > before + 1_000_000, { what: 'the leftover to be told of' });
    const isKept = cached();
    expect(isKept).toBeGreaterThan(0);
    // The CLI prints what was reclaimed only if an image went.
    const prune = ['-s', '-X', 'POST', '--unix-socket', t.engine.socket, 'http://localhost/v1.51/images/prune'];
    const { SpaceReclaimed } = JSON.parse((await runCommand('curl', prune)).stdout) as { SpaceReclaimed: number };
    expect(SpaceReclaimed).toBeGreaterThan(1_000_000);
    expect(readdirSync(partial)).toEqual([]);
    expect(cached()).toBe(isKept);
    await t.ok('image', 'prune', '-af');
    expect(cached()).toBe(0);
    expect(await layersSize()).toBe(0);
  });
});
