import { randomBytes } from 'node:crypto';
import { mkdirSync, mkdtempSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  gzipLayer,
  makeCertificates,
  makeImage,
  makePodman,
  plainTar,
  startDockerd,
  startRegistry,
  type DockerdPeer,
  type FixtureImage,
  type PodmanPeer,
  type TestCertificates,
} from '@flotilla/testkit';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { runCommand, startTestEngine, type CommandResult, type TestEngine } from './test-engine.js';

const cacheDirectory = join(import.meta.dirname, '../../.cache');
const listener = '127.0.0.1:5005';
const token = 'a-token-of-the-test';

const layer = (name: string) => gzipLayer(plainTar([[name, randomBytes(50_000)]]));

/** Both peers beside an engine; its listener is their registry. */
interface Peers extends AsyncDisposable {
  readonly podman: PodmanPeer;
  docker(args: readonly string[], input?: string): Promise<CommandResult>;
}

async function startPeers(t: TestEngine): Promise<Peers> {
  const podman = makePodman({ directory: `${t.directory}/podman`, namespace: t.namespace, storageDriver: 'vfs' });
  const dockerd: DockerdPeer = await startDockerd({
    ...{ directory: `${t.directory}/dockerd`, cacheDirectory, namespace: t.namespace },
    // It runs no containers here: nothing of it stays in the engine's namespace.
    daemonJson: { 'registry-mirrors': [`http://${listener}`], bridge: 'none', iptables: false },
  });
  return {
    podman,
    docker: (args, input = '') =>
      runCommand('docker', args, {
        env: { DOCKER_HOST: `unix://${dockerd.socket}`, DOCKER_CONFIG: `${t.directory}/dockerd-config` },
        input,
      }),
    async [Symbol.asyncDispose]() {
      await dockerd[Symbol.asyncDispose]();
      await podman[Symbol.asyncDispose]();
    },
  };
}

describe('other engines pull from the registry cache', () => {
  let t: TestEngine;
  let peers: Peers;
  let image: FixtureImage;
  beforeAll(async () => {
    t = await startTestEngine({
      pull: false,
      daemonJson: { 'registry-listen': { address: listener }, 'registry-mirrors': ['http://127.0.0.1:5000'] },
    });
    peers = await startPeers(t);
    image = makeImage([layer('a'), layer('b'), layer('c')], { Cmd: ['true'] });
    await t.registry.push(image, 'team/app', '1');
    await t.registry.push(image, 'library/hub', 'latest');
  });
  afterAll(async () => {
    await peers[Symbol.asyncDispose]();
    await t[Symbol.asyncDispose]();
  });

  it('podman, by the name of the registry in the path', async () => {
    const { podman } = peers;
    const name = `${listener}/127.0.0.1__5000/team/app`;
    await podman.ok('pull', '-q', '--tls-verify=false', `${name}:1`);
    expect(await podman.ok('inspect', '--format', '{{.Id}} {{.Digest}}', `${name}:1`)).toBe(
      `${image.id.slice(7)} ${image.manifestDigest}`,
    );
    await podman.ok('rmi', `${name}:1`);
    await podman.ok('pull', '-q', '--tls-verify=false', `${name}@${image.manifestDigest}`);
    const absent = await podman.run(['pull', '--tls-verify=false', `${name}:absent`]);
    expect([absent.code, absent.stderr]).toEqual([125, expect.stringContaining('manifest unknown')]);
  });

  it('dockerd, by the name of the registry in the path, and as the mirror of Docker Hub', async () => {
    const name = `${listener}/127.0.0.1__5000/team/app`;
    const pulled = await peers.docker(['pull', `${name}:1`]);
    expect([pulled.code, pulled.stderr]).toEqual([0, '']);
    expect(pulled.stdout).toContain(`Digest: ${image.manifestDigest}`);
    const ids = ['inspect', '-f', '{{.Id}} {{json .RepoDigests}}'];
    expect((await peers.docker([...ids, `${name}:1`])).stdout).toBe(
      `${image.id} ["${name}@${image.manifestDigest}"]\n`,
    );
    expect((await peers.docker(['rmi', '-f', image.id])).code).toBe(0);
    expect(await peers.docker(['pull', '-q', 'hub'])).toMatchObject({ code: 0, stderr: '' });
    expect((await peers.docker([...ids, 'hub'])).stdout).toBe(`${image.id} ["hub@${image.manifestDigest}"]\n`);
    expect((await peers.docker(['pull', '-qa', name])).code).toBe(0);
    const absent = await peers.docker(['pull', `${name}:absent`]);
    expect([absent.code, absent.stderr]).toEqual([1, expect.stringContaining(`manifest for ${name}:absent not found`)]);
  });

  it('both, when the registry is gone', async () => {
    const port = 5007;
    const options = { directory: `${t.directory}/gone`, port, namespace: t.namespace };
    const gone = makeImage([layer('gone')], { Cmd: ['true'] });
    const name = `${listener}/127.0.0.1__${port}/gone`;
    {
      await using registry = await startRegistry(options);
      await registry.push(gone, 'gone', 'latest');
      await t.ok('pull', '-q', `127.0.0.1:${port}/gone`);
    }
    expect(await peers.docker(['pull', '-q', name])).toMatchObject({ code: 0, stderr: '' });
    expect(await peers.podman.ok('pull', '-q', '--tls-verify=false', name)).toBe(gone.id.slice(7));
  });

  it('podman saves, loads, pushes and pulls the same images with the same ids and digests', async () => {
    const { podman } = peers;
    const direct = `${t.registry.address}/team/app`;
    const ids = (name: string) => podman.ok('inspect', '--format', 'sha256:{{.Id}}', name);
    await podman.ok('rmi', '-af');
    await t.ok('pull', '-q', `${direct}:1`);

    // Saved here, loaded there: in both forms the archive has.
    const saved = `${t.directory}/saved.tar`;
    await t.ok('save', '-o', saved, `${direct}:1`);
    await podman.ok('load', '-qi', saved);
    expect(await ids(`${direct}:1`)).toBe(image.id);
    await podman.ok('pull', '-q', `oci-archive:${saved}`);
    expect(await podman.ok('images', '-aq', '--no-trunc')).toBe(image.id);

    // Saved there, loaded here.
    for (const format of ['docker-archive', 'oci-archive']) {
      const path = `${t.directory}/podman-${format}.tar`;
      const name = `localhost/${format}:1`;
      await podman.ok('tag', `${direct}:1`, name);
      await podman.ok('save', '-q', '--format', format, '-o', path, name);
      expect(await t.ok('load', '-i', path)).toBe(`Loaded image: ${name}`);
      const diffIds = image.layers.map(({ diffId }) => diffId);
      expect(JSON.parse(await t.ok('inspect', '-f', '{{json .RootFS.Layers}}', name))).toEqual(diffIds);
      // An OCI archive has the configuration rewritten: then the id is what podman calls it when it loads that.
      if (format === 'docker-archive') expect(await t.ok('inspect', '-f', '{{.Id}}', name)).toBe(image.id);
      await podman.ok('rmi', name);
      await podman.ok('load', '-qi', path);
      expect(await ids(name)).toBe(await t.ok('inspect', '-f', '{{.Id}}', name));
      await t.ok('rmi', name);
    }

    // Pushed there, pulled here, and the other way round.
    const digestFile = `${t.directory}/digest`;
    await podman.ok('push', '-q', '--tls-verify=false', '--digestfile', digestFile, `${direct}:1`, `${direct}:podman`);
    await t.ok('rmi', '-f', image.id);
    await t.ok('pull', '-q', `${direct}:podman`);
    expect(await t.ok('inspect', '-f', '{{.Id}}', `${direct}:podman`)).toBe(image.id);
    const digest = (await runCommand('cat', [digestFile])).stdout;
    expect(await t.ok('inspect', '-f', '{{json .RepoDigests}}', `${direct}:podman`)).toBe(`["${direct}@${digest}"]`);
    await t.ok('tag', `${direct}:podman`, `${direct}:flotilla`);
    expect(await t.ok('push', `${direct}:flotilla`)).toContain(`flotilla: digest: ${digest} size: `);
    await podman.ok('rmi', '-af');
    await podman.ok('pull', '-q', '--tls-verify=false', `${direct}:flotilla`);
    expect(await podman.ok('inspect', '--format', 'sha256:{{.Id}} {{.Digest}}', `${direct}:flotilla`)).toBe(
      `${image.id} ${digest}`,
    );
  });
});

describe('other engines pull from the registry cache with TLS and a token', () => {
  let t: TestEngine;
  let peers: Peers;
  let certificates: TestCertificates;
  let trust: string;
  beforeAll(async () => {
    const directory = mkdtempSync('/dev/shm/flotilla-e2e-keys-');
    t = await startTestEngine({
      daemonJson: {
        'registry-listen': {
          address: listener,
          tls: { cert: `${directory}/server.crt`, key: `${directory}/server.key` },
          'token-file': `${directory}/token`,
        },
      },
      prepare: () => {
        certificates = makeCertificates(directory, '127.0.0.1');
        writeFileSync(`${directory}/token`, token, { mode: 0o600 });
      },
    });
    peers = await startPeers(t);
    trust = `${t.directory}/trust`;
    mkdirSync(trust);
    await runCommand('cp', [certificates.ca, `${trust}/ca.crt`]);
    await runCommand('rm', ['-r', directory]);
  });
  afterAll(async () => {
    await peers[Symbol.asyncDispose]();
    await t[Symbol.asyncDispose]();
  });

  const name = `${listener}/127.0.0.1__5000/busybox`;

  it('podman', async () => {
    const { podman } = peers;
    const pull = ['pull', '-q', `--cert-dir=${trust}`, name];
    expect((await podman.run(['pull', '-q', name])).stderr).toMatch(/certificate/);
    expect(await podman.run(pull)).toMatchObject({ code: 125 });
    const login = ['login', `--cert-dir=${trust}`, '-u', 'any', '--password-stdin', listener];
    expect((await podman.run(login, 'a-guess-of-the-test')).code).not.toBe(0);
    expect(await podman.run(login, token)).toMatchObject({ code: 0 });
    expect(await podman.ok(...pull)).toBe(t.busybox.id.slice(7));
  });

  it('dockerd', async () => {
    expect((await peers.docker(['pull', '-q', name])).code).toBe(1);
    const login = ['login', '-u', 'any', '--password-stdin', listener];
    expect((await peers.docker(login, 'a-guess-of-the-test')).code).toBe(1);
    expect((await peers.docker(login, token)).code).toBe(0);
    expect((await peers.docker(['pull', '-q', name])).code).toBe(0);
    expect((await peers.docker(['inspect', '-f', '{{.Id}}', name])).stdout).toBe(`${t.busybox.id}\n`);
  });
});
