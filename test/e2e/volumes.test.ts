import { gzipLayer, makeImage, plainTar } from '@flotilla/testkit';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
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
});
