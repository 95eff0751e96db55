import { existsSync, mkdirSync, readFileSync, readdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { readMounts } from '@flotilla/sys';
import { waitFor } from '@flotilla/testkit';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { rawRequest } from './raw-http.js';
import { runCommand, startTestEngine, type TestEngine } from './test-engine.js';

describe('options of mounts', () => {
  let t: TestEngine;
  beforeAll(async () => {
    t = await startTestEngine();
  });
  afterAll(async () => {
    await t[Symbol.asyncDispose]();
  });
  afterEach(async () => {
    const ids = (await t.ok('ps', '-aq')).split('\n').filter(Boolean);
    if (ids.length > 0) await t.ok('rm', '-fv', ...ids);
  });
  const inEngine = (script: string) => {
    const [file, args] = t.namespace.command('sh', ['-c', script]);
    return runCommand(file, args);
  };
  /** Mounts of parts of volumes, and the directories that held them. */
  const pins = () =>
    readdirSync(join(t.engine.execRoot, 'containers')).flatMap((id) => {
      const directory = join(t.engine.execRoot, 'containers', id, 'pins');
      return existsSync(directory) ? readdirSync(directory) : [];
    });

  it('shows a directory or a file of a volume, and follows links only within it', async () => {
    await t.ok('volume', 'create', 'parts');
    const data = await t.ok('volume', 'inspect', '-f', '{{.Mountpoint}}', 'parts');
    mkdirSync(join(data, 'deep', 'er'), { recursive: true });
    writeFileSync(join(data, 'deep', 'er', 'file'), 'inside');
    writeFileSync(join(t.directory, 'secret'), 'outside');
    symlinkSync('deep/er', join(data, 'good'));
    symlinkSync(t.directory, join(data, 'bad'));
    symlinkSync('../../../..', join(data, 'up'));
    const mount = (subpath: string) => `type=volume,source=parts,target=/x,volume-subpath=${subpath}`;
    const cat = (subpath: string, path: string) =>
      t.docker(['run', '--rm', '--mount', mount(subpath), 'busybox', 'cat', path]);
    expect(await cat('deep', '/x/er/file')).toMatchObject({ code: 0, stdout: 'inside' });
    expect(await cat('good', '/x/file')).toMatchObject({ code: 0, stdout: 'inside' });
    expect(await cat('deep/er/file', '/x')).toMatchObject({ code: 0, stdout: 'inside' });
    const missing = await cat('nowhere', '/x');
    expect(missing.code).toBe(127); // The CLI's, for anything that says this.
    expect(missing.stderr).toContain(`cannot access path ${data}/nowhere: no such file or directory`);
    for (const subpath of ['bad', 'bad/secret', 'up']) {
      const refused = await cat(subpath, '/x/secret');
      expect(refused).toMatchObject({ code: 125, stdout: '' });
      expect(refused.stderr).toContain('path concatenation escapes the base directory');
    }
    expect((await cat('../x', '/x')).stderr).toContain('subpath must be a relative path within the volume');
    expect(pins()).toEqual([]);
    const below = join(t.engine.execRoot, 'containers');
    const mounts = readMounts(t.engine.launcherPid).map(({ target }) => target);
    expect(mounts.filter((target) => target.startsWith(below) && target.includes('/pins/'))).toEqual([]);
  });

  it('writes through, and leaves nothing after kill -9 of the container service', async () => {
    await t.ok('volume', 'create', 'kept');
    const data = await t.ok('volume', 'inspect', '-f', '{{.Mountpoint}}', 'kept');
    mkdirSync(join(data, 'part'));
    const mount = 'type=volume,source=kept,target=/x,volume-subpath=part';
    await t.ok(
      'run',
      '-d',
      '--name',
      'cc',
      '--mount',
      mount,
      'busybox',
      'sh',
      '-c',
      'echo yes > /x/written; sleep 600',
    );
    const written = () => readFileSync(join(data, 'part', 'written'), 'utf8');
    await waitFor(() => written() === 'yes\n', { what: 'the file' });
    const pid = (await t.engine.services()).find(({ service }) => service === 'container')?.pid ?? 0;
    process.kill(pid, 'SIGKILL');
    process.kill(Number(await t.ok('inspect', '-f', '{{.State.Pid}}', 'cc')), 'SIGKILL');
    await waitFor(async () => (await t.docker(['inspect', '-f', '{{.State.Running}}', 'cc'])).stdout === 'false\n', {
      what: 'its end',
      timeoutMs: 60_000,
    });
    await waitFor(() => pins().length === 0, { what: 'the end of its mounts' });
    expect(written()).toBe('yes\n');
    await t.ok('start', 'cc');
    expect(pins()).toHaveLength(1);
    await t.ok('rm', '-f', 'cc');
    expect(pins()).toEqual([]);
    expect(written()).toBe('yes\n');
  });

  it('makes binds read-only with what is mounted in them, or not', async () => {
    const source = join(t.directory, 'tree');
    mkdirSync(join(source, 'inner'), { recursive: true });
    // In the engine's mount namespace, where it lasts as long as the test wants.
    expect(await inEngine(`mount -t tmpfs tmpfs ${source}/inner`)).toMatchObject({ code: 0 });
    try {
      const touch = (options: string, path: string) =>
        t.docker([
          'run',
          '--rm',
          '--mount',
          `type=bind,source=${source},target=/x${options}`,
          'busybox',
          'touch',
          path,
        ]);
      expect((await touch('', '/x/inner/a')).code).toBe(0);
      expect((await touch(',readonly', '/x/inner/b')).stderr).toContain('Read-only file system');
      expect((await touch(',readonly,bind-recursive=readonly,bind-propagation=rprivate', '/x/inner/b')).code).toBe(1);
      expect((await touch(',readonly,bind-recursive=writable', '/x/inner/c')).code).toBe(0);
      expect((await touch(',readonly,bind-recursive=writable', '/x/c')).code).toBe(1);
      expect((await touch(',bind-recursive=disabled', '/x/inner/d')).code).toBe(0);
      const names = (await inEngine(`ls ${source}/inner; umount ${source}/inner; ls ${source}/inner`)).stdout;
      expect(names.split('\n').filter(Boolean)).toEqual(['a', 'c', 'd']);
    } finally {
      await inEngine(`umount ${source}/inner 2>/dev/null`);
    }
  });

  it('makes the source of a bind on demand', async () => {
    const made = join(t.directory, 'made');
    const missing = await t.docker(['create', '--mount', `type=bind,source=${made},target=/x`, 'busybox']);
    expect(missing.stderr).toContain(`bind source path does not exist: ${made}`);
    const bind = { Type: 'bind', Source: made, Target: '/x', BindOptions: { CreateMountpoint: true } };
    // Not every CLI has a word for it.
    const { status } = await rawRequest(t.engine.socket, 'POST', '/containers/create?name=cc', {
      Image: 'busybox',
      Cmd: ['true'],
      HostConfig: { Mounts: [bind] },
    });
    expect(status).toBe(201);
    await t.ok('start', '-a', 'cc');
    expect(existsSync(made)).toBe(true);
  });
});
