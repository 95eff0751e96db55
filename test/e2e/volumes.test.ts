import { existsSync, readdirSync, readFileSync, renameSync } from 'node:fs';
import { join } from 'node:path';
import { gzipLayer, makeImage, plainTar, waitFor } from '@flotilla/testkit';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { killProcess } from './kill-process.js';
import { startTestEngine, type TestEngine } from './test-engine.js';

describe('volumes', () => {
  let t: TestEngine;
  beforeAll(async () => {
    t = await startTestEngine();
  });
  afterAll(async () => {
    await t[Symbol.asyncDispose]();
  });

  it('keeps data in a named volume', async () => {
    await t.ok('run', '--rm', '-v', 'data:/d', 'busybox', 'sh', '-c', 'echo kept > /d/file');
    expect(await t.ok('run', '--rm', '-v', 'data:/elsewhere:ro', 'busybox', 'cat', '/elsewhere/file')).toBe('kept');
    const refused = await t.docker(['run', '--rm', '-v', 'data:/d:ro', 'busybox', 'touch', '/d/x']);
    expect(refused.stderr).toContain('Read-only file system');
    expect(await t.ok('volume', 'ls', '-q')).toBe('data');
    expect(await t.ok('volume', 'inspect', '-f', '{{.Name}} {{.Driver}} {{.Scope}}', 'data')).toBe('data local local');
    await t.ok('volume', 'rm', 'data');
    expect((await t.docker(['volume', 'inspect', 'data'])).stderr).toContain('no such volume');
  });

  it('refuses to remove a volume in use', async () => {
    const id = await t.ok('create', '-v', 'held:/d', 'busybox');
    const refused = await t.docker(['volume', 'rm', 'held']);
    expect(refused.stderr).toContain(`remove held: volume is in use - [${id}]`);
    await t.ok('rm', id);
    await t.ok('volume', 'rm', 'held');
  });

  it('creates with labels and refuses other options under the same name', async () => {
    expect(await t.ok('volume', 'create', '--label', 'a=b', 'labelled')).toBe('labelled');
    expect(await t.ok('volume', 'create', 'labelled')).toBe('labelled');
    expect(await t.ok('volume', 'ls', '-q', '-f', 'label=a=b')).toBe('labelled');
    expect((await t.docker(['volume', 'create', '..'])).code).toBe(1);
    await t.ok('volume', 'rm', 'labelled');
  });

  it('copies image content into a new volume with modes and owners', async () => {
    const layer = gzipLayer(
      plainTar([
        { name: 'data/', type: '5', mode: 0o750, uid: 1000, gid: 50 },
        { name: 'data/file', data: Buffer.from('content'), mode: 0o640, uid: 1000, gid: 50 },
        { name: 'data/link', type: '2', linkname: 'file' },
      ]),
    );
    const busybox = t.busybox.layers[0];
    if (busybox === undefined) throw new Error('no busybox layer');
    await t.registry.push(
      makeImage([busybox, layer], { Env: ['PATH=/bin'], Cmd: ['sh'], Volumes: { '/data': {} } }),
      'with-data',
      'latest',
    );
    const image = `${t.registry.address}/with-data`;
    const look = 'stat -c "%a %u:%g" /data /data/file; readlink /data/link; cat /data/file';
    expect(await t.ok('run', '--rm', '-v', 'copied:/data', image, 'sh', '-c', look)).toBe(
      '750 1000:50\n640 1000:50\nfile\ncontent',
    );
    expect(await t.ok('run', '--rm', '-v', 'copied:/v', 'busybox', 'cat', '/v/file')).toBe('content');
    await t.ok('volume', 'rm', 'copied');
    const id = await t.ok('run', '-d', image, 'true');
    expect(await t.ok('volume', 'ls', '-q')).toMatch(/^[0-9a-f]{64}$/);
    await t.ok('rm', '-fv', id);
    expect(await t.ok('volume', 'ls', '-q')).toBe('');
    await t.ok('rmi', image);
  });

  const busyboxWith = async (name: string, layer: ReturnType<typeof gzipLayer>) => {
    const busybox = t.busybox.layers[0];
    if (busybox === undefined) throw new Error('no busybox layer');
    const image = makeImage([busybox, layer], { Env: ['PATH=/bin'], Cmd: ['sh'], Volumes: { '/data': {} } });
    await t.registry.push(image, name, 'latest');
    return `${t.registry.address}/${name}`;
  };
  const volumes = async () => (await t.ok('volume', 'ls', '-q')).split('\n').filter(Boolean);
  /** A service that serves: how to kill it at once, and to wait for the next one. */
  const serving = async (service: string) => {
    const pidOf = async () => {
      const found = (await t.engine.services()).find((one) => one.service === service);
      return found?.health === 'SERVING' ? found.pid : undefined;
    };
    const before = await waitFor(pidOf, { what: `${service} to serve`, timeoutMs: 60_000 });
    const back = async () => {
      const isBack = async () => ![undefined, before].includes(await pidOf());
      await waitFor(isBack, { what: `another ${service}`, timeoutMs: 60_000 });
    };
    return { kill: () => killProcess(before), back };
  };
  const kill = async (service: string) => {
    const one = await serving(service);
    one.kill();
    return one.back;
  };

  it('of another container hold what its image has, and go with the last that has them', async () => {
    const image = await busyboxWith('origin', gzipLayer(plainTar([['data/of-the-image', Buffer.from('x')]])));
    await t.ok('create', '--name', 'origin', image);
    expect(await t.ok('run', '--name', 'guest', '--volumes-from', 'origin:ro', 'busybox', 'ls', '/data')).toBe(
      'of-the-image',
    );
    await t.ok('rm', '-v', 'origin');
    expect(await volumes()).toHaveLength(1);
    await t.ok('rm', '-v', 'guest');
    expect(await volumes()).toEqual([]);
    // Emptied by hand: a second start of the same container leaves it so.
    await t.ok('run', '--name', 'twice', '-v', 'emptied:/data', image, 'sh', '-c', 'rm -rf /data/*; ls /data');
    expect(await t.ok('start', '-a', 'twice')).toBe('');
    await t.ok('rm', 'twice');
    await t.ok('volume', 'rm', 'emptied');
  });

  it('with a driver that is not there, or relative binds, are refused in one sentence', async () => {
    const missing = await t.docker([
      'run',
      '--rm',
      '--mount',
      'type=volume,src=vv,dst=/d,volume-driver=nope',
      'busybox',
    ]);
    expect([missing.code, missing.stderr]).toEqual([
      125,
      expect.stringMatching(
        /^docker: Error response from daemon: create vv: error looking up volume plugin nope: plugin "nope" not found\n/,
      ),
    ]);
    const relative = await t.docker(['volume', 'create', '-o', 'type=none', '-o', 'o=bind', '-o', 'device=..', 'vv']);
    expect(relative.stderr).toContain('create vv: invalid option: "device" must be an absolute path to be bound');
    const shared = await t.docker(['run', '--rm', '-v', 'vv:/d:shared', 'busybox']);
    expect(shared.stderr).toContain('field BindOptions must not be specified');
    expect(await volumes()).toEqual([]);
  });

  it('are whole after a copy that was cut', async () => {
    const files = Array.from({ length: 3000 }, (_, at): [string, Buffer] => [
      `data/${at % 30}/${at}`,
      Buffer.alloc(600, at),
    ]);
    const image = await busyboxWith('many-files', gzipLayer(plainTar(files)));
    await t.ok(
      'create',
      '--name',
      'cut',
      '-v',
      'cut:/data',
      image,
      'sh',
      '-c',
      'find /data -type f | wc -l; ls -A /data | wc -l',
    );
    const content = join(t.engine.dataRoot, 'volumes/cut/_data');
    const service = await serving('container');
    const isCopying = () =>
      existsSync(content) && readdirSync(content).some((name) => name.startsWith('.flotilla-copy-up-'));
    const starting = t.docker(['start', '-a', 'cut']);
    await waitFor(isCopying, { what: 'the copy', intervalMs: 1 });
    service.kill();
    const isCut = isCopying();
    await starting;
    await service.back();
    expect(isCut).toBe(true);
    const again = await t.ok('start', '-a', 'cut').catch(() => t.ok('logs', 'cut'));
    expect(again).toBe('3000\n30');
    await t.ok('rm', 'cut');
    await t.ok('volume', 'rm', 'cut');
  });

  it('are held by nobody who is gone, whenever services die', async () => {
    await t.ok('volume', 'create', '-o', 'type=tmpfs', '-o', 'device=tmpfs', 'memory');
    for (const service of ['volume', 'container', 'volume', 'container']) {
      const runs = [0, 1].map(() =>
        t.docker(['run', '--rm', '-v', 'memory:/m', '-v', 'kept:/k', '-v', '/anon', 'busybox', 'true']),
      );
      const back = await kill(service);
      await Promise.all(runs);
      await back();
    }
    const left = (await t.ok('ps', '-aq')).split('\n').filter(Boolean);
    if (left.length > 0) await t.ok('rm', '-fv', ...left);
    expect((await volumes()).sort()).toEqual(['kept', 'memory']);
    expect(readFileSync('/proc/self/mounts', 'utf8')).not.toContain(`${t.engine.dataRoot}/volumes/memory/_data`);
    await t.ok('volume', 'rm', 'kept', 'memory');
    expect(readdirSync(join(t.engine.dataRoot, 'volumes'))).toEqual(['.removed']);
  });

  it('exec says that what the container runs with is gone', async () => {
    const id = await t.ok('run', '-d', 'busybox', 'sleep', '600');
    const bundle = join(t.engine.execRoot, 'containers', id);
    renameSync(join(bundle, 'config.json'), join(bundle, 'gone.json'));
    const refused = await t.docker(['exec', id, 'true']);
    expect(refused.stdout + refused.stderr).toMatch(
      /container [0-9a-f]{64} takes no commands until it is restarted: .* is gone \(.*config\.json\)/,
    );
    await t.ok('restart', '-t', '0', id);
    await t.ok('exec', id, 'true');
    await t.ok('rm', '-f', id);
  });
});
