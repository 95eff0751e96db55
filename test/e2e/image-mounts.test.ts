import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { readMounts } from '@flotilla/sys';
import { dockerArchive, gzipLayer, makeImage, plainTar, waitFor } from '@flotilla/testkit';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { killProcess } from './kill-process.js';
import { rawRequest } from './raw-http.js';
import { startTestEngine, type TestEngine } from './test-engine.js';

/** Two layers, the upper of which takes a file of the lower away. */
const data = makeImage([
  gzipLayer(
    plainTar([
      ['deep/er/file', Buffer.from('inside')],
      ['gone', Buffer.from('gone')],
    ]),
  ),
  gzipLayer(
    plainTar([
      ['.wh.gone', Buffer.from('')],
      ['top', Buffer.from('top')],
    ]),
  ),
]);
const single = makeImage([gzipLayer(plainTar([['only', Buffer.from('only')]]))]);

describe('mounts of images', () => {
  let t: TestEngine;
  beforeAll(async () => {
    t = await startTestEngine();
  });
  afterAll(async () => {
    await t[Symbol.asyncDispose]();
  });
  beforeEach(async () => {
    await t.docker(['load', '-q'], { input: dockerArchive(data, ['data:1']) });
    await t.docker(['load', '-q'], { input: dockerArchive(single, ['single:1']) });
  });
  afterEach(async () => {
    const ids = (await t.ok('ps', '-aq')).split('\n').filter(Boolean);
    if (ids.length > 0) await t.ok('rm', '-fv', ...ids);
    expect(pins()).toEqual([]);
  });
  const mount = (more = '', image = 'data:1') => ['--mount', `type=image,source=${image},target=/x${more}`];
  const below = () => join(t.engine.execRoot, 'containers');
  /** What is mounted beside root file systems, and the directories that held it. */
  const pins = () => [
    ...readdirSync(below()).filter((id) => existsSync(join(below(), id, 'pins'))),
    ...readMounts(t.engine.launcherPid).filter(({ target }) => target.startsWith(below()) && target.includes('/pins/')),
  ];

  it('shows what the image holds, and lets nobody write', async () => {
    const script = 'find /x -type f | sort; cat /x/top; echo; touch /x/new; mount | grep -c " /x "';
    const ran = await t.docker(['run', '--rm', ...mount(), 'busybox', 'sh', '-c', script]);
    expect(ran).toMatchObject({ code: 0, stdout: '/x/deep/er/file\n/x/top\ntop\n1\n' });
    expect(ran.stderr).toContain('Read-only file system');
    expect(await t.ok('run', '--rm', ...mount('', 'single:1'), 'busybox', 'ls', '/x')).toBe('only');
    // The same image twice, and the container's own.
    const twice = ['--mount', 'type=image,source=busybox,target=/y', '--mount', 'type=image,source=busybox,target=/z'];
    expect(
      await t.ok('run', '--rm', ...twice, 'busybox', 'sh', '-c', 'cmp /y/bin/busybox /z/bin/busybox; echo $?'),
    ).toBe('0');
  });

  it('shows a directory or a file of it, and nothing beyond', async () => {
    const cat = (subpath: string, path: string) =>
      t.docker(['run', '--rm', ...mount(`,image-subpath=${subpath}`), 'busybox', 'cat', path]);
    expect(await cat('deep', '/x/er/file')).toMatchObject({ code: 0, stdout: 'inside' });
    expect(await cat('deep/er/file', '/x')).toMatchObject({ code: 0, stdout: 'inside' });
    expect((await cat('nowhere', '/x')).stderr).toContain('nowhere: no such file or directory');
    expect((await cat('../x', '/x')).stderr).toContain(
      'invalid mount config for type "image": subpath must be a relative path within the volume',
    );
  });

  it('refuses what cannot be, and leaves nothing', async () => {
    const create = (path: string, entry: object) =>
      rawRequest(t.engine.socket, 'POST', `${path}/containers/create`, {
        Image: 'busybox',
        HostConfig: { Mounts: [{ Type: 'image', Target: '/x', ...entry }] },
      });
    expect(await create('/v1.48', { Source: 'nowhere' })).toMatchObject({
      status: 404,
      json: { message: 'No such image: nowhere:latest' },
    });
    expect(await create('/v1.47', { Source: 'data:1' })).toMatchObject({
      status: 400,
      json: { message: 'Mount type "Image" needs API v1.48 or newer' },
    });
    expect(await create('/v1.48', {})).toMatchObject({
      status: 400,
      json: { message: 'invalid mount config for type "image": field Source must not be empty' },
    });
    expect(await t.ok('ps', '-aq')).toBe('');
    expect(await t.ok('rmi', 'data:1')).toContain(`Deleted: ${data.id}`);
  });

  it('keeps the image while a container mounts it, and is shown by inspect', async () => {
    await t.ok('create', '--name', 'cc', ...mount(), 'busybox', 'sleep', '600');
    const short = data.id.slice(7, 19);
    const id = await t.ok('inspect', '-f', '{{.Id}}', 'cc');
    expect((await t.docker(['rmi', 'data:1'])).stderr).toContain(
      `unable to remove repository reference "data:1" (must force) - container ${id.slice(0, 12)} is using its referenced image ${short}`,
    );
    await t.ok('image', 'prune', '-af');
    expect(await t.ok('images', '-q', 'data:1')).toBe(short);
    await t.ok('start', 'cc');
    expect((await t.docker(['rmi', '-f', short])).stderr).toContain(
      `unable to delete ${short} (cannot be forced) - image is being used by running container ${id.slice(0, 12)}`,
    );
    const [shown, ...rest] = JSON.parse(await t.ok('inspect', '-f', '{{json .Mounts}}', 'cc')) as { Source: string }[];
    expect(rest).toEqual([]);
    expect(shown).toEqual({
      Type: 'image',
      Name: 'data:1',
      Source: shown?.Source,
      Destination: '/x',
      Mode: '',
      RW: false,
      Propagation: 'rprivate',
    });
    expect(readMounts(t.engine.launcherPid).map(({ target }) => target)).toContain(shown?.Source);
    await t.ok('rm', '-f', 'cc');
    expect(await t.ok('rmi', 'data:1')).toContain(`Deleted: ${data.id}`);
  });

  it('goes on after the end of its name, and to whom it is handed by --volumes-from', async () => {
    await t.ok('create', '--name', 'cc', ...mount(), 'busybox', 'cat', '/x/top');
    await t.ok('run', '--name', 'dd', '--volumes-from', 'cc', 'busybox', 'cat', '/x/top');
    await t.ok('rm', 'dd');
    await t.ok('rmi', '-f', 'data:1');
    expect(await t.ok('start', '-a', 'cc')).toBe('top');
  });

  it('is copied from, whether the container runs or not', async () => {
    await t.ok('create', '--name', 'cc', ...mount(',image-subpath=deep'), 'busybox', 'sleep', '600');
    const copy = async () => {
      await t.ok('cp', 'cc:/x/er/file', join(t.directory, 'copied'));
      const refused = await t.docker(['cp', join(t.directory, 'copied'), 'cc:/x/er/other']);
      expect(refused.stderr).toContain('read-only');
    };
    await copy();
    expect(pins()).toEqual([]);
    await t.ok('start', 'cc');
    await copy();
  });

  it('stays over kill -9 of the services, and goes with the run', async () => {
    await t.ok('run', '-d', '--name', 'cc', ...mount(',image-subpath=deep'), 'busybox', 'sleep', '600');
    const services = await t.engine.services();
    for (const { service, pid } of services) if (['container', 'image'].includes(service)) killProcess(pid);
    expect(await t.ok('exec', 'cc', 'cat', '/x/er/file')).toBe('inside');
    const [again] = (await t.engine.services()).filter(({ service }) => service === 'container');
    killProcess(again?.pid ?? 0);
    killProcess(Number(await t.ok('inspect', '-f', '{{.State.Pid}}', 'cc')));
    await waitFor(async () => (await t.docker(['inspect', '-f', '{{.State.Running}}', 'cc'])).stdout === 'false\n', {
      what: 'its end',
      timeoutMs: 60_000,
    });
    await waitFor(() => pins().length === 0, { what: 'the end of its mounts' });
    await t.ok('start', 'cc');
    expect(await t.ok('exec', 'cc', 'cat', '/x/er/file')).toBe('inside');
  });
});
