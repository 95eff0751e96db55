import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { join } from 'node:path';
import {
  dockerArchive,
  createNetworkNamespace,
  gzipLayer,
  makeImage,
  plainTar,
  sha256,
  startDockerd,
  waitFor,
  type DockerdPeer,
  type FixtureImage,
  type NetworkNamespace,
} from '@flotilla/testkit';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { enterNamespace } from './enter-namespace.js';
import { rawRequest } from './raw-http.js';
import { runCommand, startTestEngine, type TestEngine } from './test-engine.js';

const cacheDirectory = join(import.meta.dirname, '../../.cache');

describe('images as archives', () => {
  let t: TestEngine;
  let dockerd: DockerdPeer;
  let peerHost: NetworkNamespace;
  /** Two layers, of which the first occurs twice, and two tags. */
  let layered: FixtureImage;
  beforeAll(async () => {
    t = await startTestEngine();
    peerHost = createNetworkNamespace();
    dockerd = await startDockerd({ directory: `${t.directory}/dockerd`, cacheDirectory, namespace: peerHost });
    const small = gzipLayer(plainTar([['twice', Buffer.from('same')]]));
    const large = gzipLayer(plainTar([['random', randomBytes(3_000_000)]]));
    layered = makeImage([small, large, small], { Cmd: ['x'] });
    writeFileSync(`${t.directory}/layered.tar`, dockerArchive(layered, ['layered:1', 'layered:2']));
    await t.ok('load', '-qi', `${t.directory}/layered.tar`);
  });
  afterAll(async () => {
    await dockerd[Symbol.asyncDispose]();
    peerHost[Symbol.dispose]();
    await t[Symbol.asyncDispose]();
  });

  const peer = async (...args: string[]): Promise<string> => {
    const { code, stdout, stderr } = await runCommand('docker', ['-H', `unix://${dockerd.socket}`, ...args], {
      env: { DOCKER_CONFIG: `${t.directory}/docker-config` },
    });
    if (code !== 0) throw new Error(`dockerd: docker ${args.join(' ')}: ${stderr}`);
    return stdout.trim();
  };
  const skopeo = (...args: string[]): string =>
    t.namespace.run('skopeo', ['--insecure-policy', '--tmpdir', t.directory, ...args]);
  /** Names in an archive with the hashes of their content. */
  const files = (archive: string): Map<string, string> => {
    const names = execFileSync('tar', ['-tf', archive], { encoding: 'utf8' }).split('\n').filter(Boolean);
    return new Map(
      names
        .filter((name) => !name.endsWith('/'))
        .map((name) => [name, sha256(execFileSync('tar', ['-xOf', archive, name], { maxBuffer: 1 << 28 }))]),
    );
  };

  it('saves what dockerd and skopeo load with the same ids, and loads it back to the same bytes', async () => {
    const path = `${t.directory}/saved.tar`;
    await t.ok('save', '-o', path, 'layered', 'busybox');
    const before = files(path);
    for (const [name, digest] of before) {
      if (name.startsWith('blobs/')) expect(`sha256:${name.slice('blobs/sha256/'.length)}`).toBe(digest);
    }
    expect(await peer('load', '-i', path)).toBe(
      'Loaded image: layered:1\nLoaded image: layered:2\nLoaded image: busybox:latest',
    );
    expect(await peer('inspect', '-f', '{{.Id}}', 'layered:2', 'busybox')).toBe(`${layered.id}\n${t.busybox.id}`);
    expect(await peer('run', '--rm', '--network', 'none', 'busybox', 'echo', 'hello')).toBe('hello');
    for (const source of [`docker-archive:${path}:layered:1`, `docker-archive:${path}:busybox:latest`]) {
      const target = `${t.directory}/skopeo-dir`;
      skopeo('copy', source, `dir:${target}`);
      const manifest = JSON.parse(readFileSync(`${target}/manifest.json`, 'utf8')) as { config: { digest: string } };
      expect([layered.id, t.busybox.id]).toContain(manifest.config.digest);
    }
    const again = `${t.directory}/saved-again.tar`;
    await t.ok('rmi', 'layered:1', 'layered:2');
    await t.ok('load', '-qi', path);
    await t.ok('save', '-o', again, 'layered', 'busybox');
    expect(files(again)).toEqual(before);
  });

  it('loads what dockerd saves, with the same ids', async () => {
    const path = `${t.directory}/by-dockerd.tar`;
    await peer('load', '-qi', `${t.directory}/layered.tar`);
    await peer('save', '-o', path, 'layered:1', 'layered:2');
    await t.ok('rmi', '-f', layered.id);
    expect(await t.ok('load', '-i', path)).toBe('Loaded image: layered:1\nLoaded image: layered:2');
    expect(await t.ok('inspect', '-f', '{{.Id}}', 'layered:2')).toBe(layered.id);
  });

  it('loads what skopeo writes, and skopeo copies the layout with its digests', async () => {
    await t.ok('save', '-o', `${t.directory}/b.tar`, 'busybox');
    const [oci, docker, back] = ['oci.tar', 'docker.tar', 'back'].map((name) => `${t.directory}/skopeo-${name}`);
    skopeo('copy', `oci-archive:${t.directory}/b.tar`, `dir:${back}`);
    expect(readFileSync(`${back}/manifest.json`)).toEqual(t.busybox.manifestJson);
    skopeo('copy', `docker-archive:${t.directory}/b.tar`, `oci-archive:${oci}:localhost/by:oci`);
    skopeo('copy', `docker-archive:${t.directory}/b.tar`, `docker-archive:${docker}:by:docker`);
    expect(await t.ok('load', '-i', docker ?? '')).toBe('Loaded image: by:docker');
    expect(await t.ok('load', '-i', oci ?? '')).toBe('Loaded image: localhost/by:oci');
    expect(await t.ok('inspect', '-f', '{{.Id}}', 'by:docker')).toBe(t.busybox.id);
    await t.ok('rmi', 'by:docker', 'localhost/by:oci');
  });

  it('says what is wrong with an archive that is none, in words as dockerd and no stack in the log', async () => {
    const path = `${t.directory}/rubbish.tar`;
    writeFileSync(path, 'rubbish '.repeat(1000));
    const loggedBefore = readFileSync(t.engine.logFile).length;
    for (const socket of [dockerd.socket, t.engine.socket]) {
      const { code, stdout, stderr } = await runCommand('docker', ['-H', `unix://${socket}`, 'load', '-i', path]);
      expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
      expect(stderr).toMatch(/^.*invalid tar header.*\n$/i);
    }
    // Nothing has been sent when it is found out: a status can still tell (docs/compatibility.md).
    const answer = await rawRequest(t.engine.socket, 'POST', '/v1.51/images/load', readFileSync(path), {
      'content-type': 'application/x-tar',
    });
    expect(answer).toMatchObject({ status: 500, json: { message: expect.stringMatching(/tar header/) as string } });
    const log = await waitFor(
      () => {
        const text = readFileSync(t.engine.logFile).subarray(loggedBefore).toString();
        return [...text.matchAll(/ INFO {2}image: call failed .*tar header/g)].length >= 2 && text;
      },
      { what: 'both failures in the log' },
    );
    expect(log).not.toMatch(/ ERROR .*tar header|\n {4}at /);
  });

  it('imports from a URL, compressed in every way, and says what it could not get', async () => {
    using _inside = enterNamespace(t.namespace);
    const tar = t.busybox.layers[0]?.tar ?? Buffer.alloc(0);
    const packed = (program: string): Buffer =>
      execFileSync(program, ['-c'], { input: tar, maxBuffer: 1 << 28, stdio: ['pipe', 'pipe', 'pipe'] });
    const server = createServer((req, res) => {
      const path = req.url ?? '';
      if (path === '/moved') res.writeHead(302, { Location: '/gzip' }).end();
      else if (path === '/cut')
        res.writeHead(200, { 'Content-Length': tar.length }).write(tar.subarray(0, 9000), () => res.destroy());
      else if (path === '/login' && req.headers.authorization !== 'Basic dTpzZWNyZXQ=') res.writeHead(401).end();
      else if (path === '/tar' || path === '/login') res.end(tar);
      else if (/^\/(gzip|bzip2|xz|zstd)$/.test(path)) res.end(packed(path.slice(1)));
      else res.writeHead(404).end();
    });
    server.listen(8099, '127.0.0.1');
    await once(server, 'listening');
    try {
      const ids = new Set<string>();
      for (const path of ['tar', 'gzip', 'bzip2', 'xz', 'zstd', 'moved', 'login']) {
        const login = path === 'login' ? 'u:secret@' : '';
        const out = await t.ok('import', `http://${login}127.0.0.1:8099/${path}`, `from-url:${path}`);
        expect(out).toContain(`Downloading from http://127.0.0.1:8099/${path}`);
        ids.add(await t.ok('inspect', '-f', '{{json .RootFS.Layers}} {{.Parent}}', `from-url:${path}`));
      }
      expect([...ids]).toEqual([`["${t.busybox.layers[0]?.diffId}"] `]);
      expect(await t.ok('history', '--format', '{{.Comment}}', 'from-url:login')).toBe(
        'Imported from http://127.0.0.1:8099/login',
      );
      for (const [url, phrase] of [
        ['http://127.0.0.1:8099/absent', 'Got HTTP status code >= 400: 404'],
        ['http://127.0.0.1:1/', 'connection refused'],
        ['http://127.0.0.1:8099/cut', ''],
      ] as const) {
        const refused = await t.docker(['import', url, 'not:made']);
        expect([refused.code, refused.stderr]).toEqual([1, expect.stringContaining(phrase) as string]);
      }
      expect(await t.ok('images', '-q', 'not')).toBe('');
    } finally {
      server.closeAllConnections();
      server.close();
    }
    await t.ok('rmi', ...(await t.ok('images', '--format', '{{.Repository}}:{{.Tag}}', 'from-url')).split('\n'));
  });

  describe('of containers', () => {
    const script = [
      'echo new > /etc/new && echo more >> /etc/passwd && chmod 700 /home && rm -r /var/www && mkdir /var/www',
      'mkdir -p /deep/er && echo x > /deep/er/f && ln /deep/er/f /deep/hard && ln -s f /deep/er/soft',
      'rm /bin/wget && mv /etc/group /etc/moved && touch /data/in-volume && mkfifo /pipe && touch -d 1960-01-01 /old',
    ].join(' && ');
    const run = ['run', '--name', 'changed', '-v', '/data', '-e', 'OWN=1', '-l', 'a=b', 'busybox', 'sh', '-c'];
    const containerConfig =
      '{{json .Config.Env}} {{json .Config.Cmd}} {{json .Config.Entrypoint}} {{json .Config.ExposedPorts}} {{json .Config.Labels}} {{json .Config.Volumes}} {{.Config.WorkingDir}} {{.Config.User}} {{.Author}} {{.Comment}} {{.Parent}} {{len .RootFS.Layers}}';
    beforeAll(async () => {
      await t.ok('save', '-o', `${t.directory}/b.tar`, 'busybox');
      await peer('load', '-qi', `${t.directory}/b.tar`);
      await t.ok(...run, script);
      await peer(...run.slice(0, 1), '--network', 'none', ...run.slice(1), script);
    });

    it('diff lists what dockerd lists', async () => {
      const sorted = (text: string): string[] => text.split('\n').sort();
      expect(sorted(await t.ok('diff', 'changed'))).toEqual(sorted(await peer('diff', 'changed')));
      await t.ok('create', '--name', 'fresh', 'busybox');
      expect(await t.ok('diff', 'fresh')).toBe('');
      await t.ok('rm', 'fresh');
      expect((await t.docker(['diff', 'absent'])).stderr).toContain('No such container: absent');
    });

    it('export writes the same tree as dockerd, and import takes it', async () => {
      const [ours, theirs] = [`${t.directory}/export.tar`, `${t.directory}/export-dockerd.tar`];
      await t.ok('export', '-o', ours, 'changed');
      await peer('export', '-o', theirs, 'changed');
      const listed = (archive: string): string[] =>
        execFileSync('tar', ['--numeric-owner', '-tvf', archive], { encoding: 'utf8' })
          .split('\n')
          // Of directories dockerd and we both keep the time of the last change in them.
          .map((line) => line.replace(/ \d{4}-\d\d-\d\d \d\d:\d\d /, ' ').replace(/\s+/g, ' '))
          // What dockerd makes in every container: see docs/compatibility.md.
          .filter(
            (line) =>
              !/ (\.dockerenv|dev\/(console|pts\/|shm\/)|etc\/mtab.*|etc\/(hosts|hostname|resolv\.conf))$/.test(line),
          )
          .sort();
      expect(listed(ours)).toEqual(listed(theirs));
      await t.ok('import', ours, 'imported:1');
      expect(await t.ok('run', '--rm', 'imported:1', '/bin/cat', '/etc/new', '/deep/hard')).toBe('new\nx');
      await t.ok('rmi', 'imported:1');
    });

    it('commit makes the image that dockerd makes', async () => {
      const commit = [
        'commit',
        '-a',
        'me',
        '-m',
        'a message',
        '-c',
        'CMD ["cat","/etc/new"]',
        '-c',
        'ENV ADDED=2 OWN=3',
      ];
      commit.push('-c', 'EXPOSE 80', '-c', 'WORKDIR /deep', 'changed', 'committed:1');
      const id = await t.ok(...commit);
      expect(id).toMatch(/^sha256:[0-9a-f]{64}$/);
      await peer(...commit);
      const parts = (text: string): string[] => text.split(' ');
      const [mine, theirs] = [
        parts(await t.ok('inspect', '-f', containerConfig, 'committed:1')),
        parts(await peer('inspect', '-f', containerConfig, 'committed:1')),
      ];
      expect(mine).toEqual(theirs);
      expect(await t.ok('history', '--format', '{{.CreatedBy}}|{{.Comment}}', 'committed:1')).toBe(
        await peer('history', '--format', '{{.CreatedBy}}|{{.Comment}}', 'committed:1'),
      );
      const check = 'cat /etc/new; ls -d /bin/wget /etc/group; ls -A /data /var/www; stat -c "%a %h" /home /deep/er/f';
      const args = ['run', '--rm', '--network', 'none', 'committed:1', 'sh', '-c', check];
      const [here, there] = [await t.docker(args), await peer(...args).catch((error: unknown) => String(error))];
      expect(here.stdout.trim()).toBe(there.slice(there.indexOf('new')));
      // The layer goes where it should: into dockerd, and with the same content.
      await t.ok('save', '-o', `${t.directory}/committed.tar`, 'committed:1');
      await peer('load', '-qi', `${t.directory}/committed.tar`);
      expect(await peer('inspect', '-f', '{{.Id}}', 'committed:1')).toBe(id);
      await t.ok('rmi', 'committed:1');
    });

    it('commit of nothing adds no layer; bad instructions and names are refused before anything is made', async () => {
      await t.ok('create', '--name', 'nothing', 'busybox');
      const id = await t.ok('commit', 'nothing');
      expect(await t.ok('inspect', '-f', '{{len .RootFS.Layers}}', id)).toBe('1');
      await t.ok('rmi', id);
      const before = await t.ok('images', '-aq');
      for (const [args, phrase] of [
        [['-c', 'RUN x', 'nothing'], 'run is not a valid change command'],
        [['nothing', 'UPPER'], '(library/UPPER) must be lowercase'],
        [['absent'], 'No such container: absent'],
      ] as const) {
        const refused = await t.docker(['commit', ...args]);
        expect([refused.code, refused.stderr]).toEqual([1, expect.stringContaining(phrase) as string]);
      }
      expect(await t.ok('images', '-aq')).toBe(before);
      await t.ok('rm', 'nothing');
    });

    it('commit freezes a running container, and tells', async () => {
      const since = String(Math.floor(Date.now() / 1000));
      await t.ok('run', '-d', '--name', 'running', 'busybox', 'sleep', '1000');
      await t.ok('commit', 'running', 'frozen:1');
      await t.ok('commit', '--pause=false', 'running');
      expect(await t.ok('inspect', '-f', '{{.State.Status}}', 'running')).toBe('running');
      const events = await t.ok(
        'events',
        '--since',
        since,
        '--until',
        String(Math.ceil(Date.now() / 1000) + 1),
        '-f',
        'container=running',
        '--format',
        '{{.Action}} {{.Actor.Attributes.imageRef}}',
      );
      expect(
        events
          .split('\n')
          .slice(2)
          .map((line) => line.replace(' <no value>', '')),
      ).toEqual(['pause', 'commit frozen:1', 'unpause', 'commit ']);
      await t.ok('pause', 'running');
      expect(await t.ok('ps', '--format', '{{.Status}}', '-f', 'name=running')).toContain('(Paused)');
      await t.ok('commit', 'running');
      expect(await t.ok('inspect', '-f', '{{.State.Status}}', 'running')).toBe('paused');
      await t.ok('rm', '-f', 'running');
      await t.ok('image', 'prune', '-f');
      await t.ok('rmi', 'frozen:1');
    });

    it.each(['container', 'image', 'api-gateway'])(
      'commit while %s is killed: nothing half-made, nothing frozen, and it succeeds when it is repeated',
      async (service) => {
        await t.ok(
          'run',
          '-d',
          '--name',
          'killed',
          'busybox',
          'sh',
          '-c',
          'head -c 30000000 /dev/urandom >/f; sleep 1000',
        );
        await waitFor(async () => (await t.ok('exec', 'killed', 'stat', '-c', '%s', '/f')) === '30000000', {
          what: 'the file in the container',
        });
        const status = () => t.ok('inspect', '-f', '{{.State.Status}}', 'killed');
        const images = await t.ok('images', '-aq', '--no-trunc');
        const committing = t.docker(['commit', 'killed', 'killed:1']);
        await waitFor(async () => (await status()) === 'paused', { what: 'the freeze', intervalMs: 5 });
        const pid = (await t.engine.services()).find((it) => it.service === service)?.pid ?? 0;
        process.kill(pid, 'SIGKILL');
        const first = await committing;
        await waitFor(
          async () => (await t.engine.services()).every((it) => it.health === 'SERVING' && it.pid !== pid),
          { what: `${service} to come back`, timeoutMs: 30_000 },
        );
        await waitFor(async () => (await status()) === 'running', { what: 'the thaw' });
        // The gateway repeats it for a client that is still there; without one it is ended.
        if (service !== 'api-gateway') expect(first).toMatchObject({ code: 0 });
        if (first.code !== 0) expect(await t.ok('images', '-aq', '--no-trunc')).toBe(images);
        await t.ok('commit', 'killed', 'killed:1');
        expect(await t.ok('run', '--rm', 'killed:1', 'stat', '-c', '%s', '/f')).toBe('30000000');
        expect(readdirSync(`${t.engine.dataRoot}/image/incoming`)).toEqual([]);
        await t.ok('rm', '-f', 'killed');
        await t.ok('rmi', '-f', 'killed:1');
        await t.ok('image', 'prune', '-f');
      },
    );
  });
});
