import { execFileSync } from 'node:child_process';
import {
  chownSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  readlinkSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import Dockerode from 'dockerode';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { plainTar } from '@flotilla/testkit';
import { startTestEngine, type TestEngine } from './test-engine.js';

const script =
  'mkdir -p /d/sub && echo hi >/d/f && echo deep >/d/sub/deep && ln -s /d /link && ln -s link/f /lf && chown 70:80 /d/f';

describe('docker cp', () => {
  let t: TestEngine;
  let round = 0;
  let here: string;
  beforeAll(async () => {
    t = await startTestEngine();
    await t.ok('run', '--name', 'made', 'busybox', 'sh', '-c', script);
    await t.ok('commit', 'made', 'tree');
    await t.ok('rm', 'made');
  });
  afterAll(() => t[Symbol.asyncDispose]());
  beforeEach(() => {
    here = join(t.directory, `local-${++round}`);
    mkdirSync(here);
  });

  const make = async (state: string, name: string, ...args: string[]): Promise<void> => {
    const create = [...args, '--name', name, 'tree', 'sh', '-c', 'echo up; exec sleep 1000'];
    if (state === 'stopped') await t.ok('create', ...create);
    else await t.ok('run', '-d', ...create);
  };
  /** Owner and name of each member. */
  const owners = async (name: string, path: string): Promise<string[]> => {
    const tar = await t.ok('cp', `${name}:${path}`, '-');
    const list = execFileSync('tar', ['-tv', '--numeric-owner'], {
      input: tar,
      stdio: ['pipe', 'pipe', 'ignore'],
    });
    const lines = list.toString().split('\n').filter(Boolean);
    return lines.map((line) => line.split(/\s+/)).map(([, owner, , , , member]) => `${owner} ${member}`);
  };
  const fails = async (...args: string[]): Promise<string> => {
    const { code, stderr } = await t.docker(args);
    expect(code).not.toBe(0);
    return stderr.trim();
  };

  describe.each(['stopped', 'running'])('a container that is %s', (state) => {
    const name = `c-${state}`;
    beforeAll(async () => {
      const bind = join(t.directory, `bind-${state}`);
      mkdirSync(bind);
      await make(state, name, '-v', `vol-${state}:/vol`, '-v', `${bind}:/bind`, '-v', `${bind}:/ro:ro`);
    });
    afterAll(() => t.ok('rm', '-f', name));

    it('gives files, directories and their content', async () => {
      await t.ok('cp', `${name}:/d/f`, here);
      await t.ok('cp', `${name}:d/f`, join(here, 'renamed'));
      await t.ok('cp', `${name}:/d`, here);
      await t.ok('cp', `${name}:/d/.`, join(here, 'content'));
      await t.ok('cp', `${name}:/d/`, join(here, 'new'));
      for (const file of ['f', 'renamed', 'd/f', 'content/f', 'new/f']) {
        expect(readFileSync(join(here, file), 'utf8')).toBe('hi\n');
      }
      expect(readFileSync(join(here, 'content/sub/deep'), 'utf8')).toBe('deep\n');
      // Whose a file is the archive says; the CLI gives it to whoever runs it.
      expect(await owners(name, '/d')).toContain('70/80 d/f');
      expect(statSync(join(here, 'd/f')).uid).toBe(0);
    });

    it('gives links as links, and with -L what they lead to', async () => {
      await t.ok('cp', `${name}:/link`, here);
      expect(readlinkSync(join(here, 'link'))).toBe('/d');
      await t.ok('cp', '-L', `${name}:/lf`, join(here, 'file'));
      expect(lstatSync(join(here, 'file')).isFile()).toBe(true);
      await t.ok('cp', '-L', `${name}:/link`, join(here, 'tree'));
      expect(readdirSync(join(here, 'tree')).sort()).toEqual(['f', 'sub']);
      await t.ok('cp', `${name}:/link/.`, join(here, 'through'));
      expect(readdirSync(join(here, 'through')).sort()).toEqual(['f', 'sub']);
    });

    it('gives and takes tars on standard output and input', async () => {
      const env = { ...process.env, DOCKER_HOST: `unix://${t.engine.socket}` };
      const tar = execFileSync('docker', ['cp', `${name}:/d`, '-'], { env });
      expect(execFileSync('tar', ['-t'], { input: tar }).toString()).toBe('d/\nd/f\nd/sub/\nd/sub/deep\n');
      const whole = execFileSync('docker', ['cp', `${name}:/`, '-'], { env, maxBuffer: 64 << 20 });
      const names = execFileSync('tar', ['-tP'], { input: whole }).toString().split('\n');
      expect(names).toEqual(expect.arrayContaining(['/', '/.dockerenv', '/d/f', '/etc/passwd']));
      expect(names.filter((path) => /^\/(proc|sys|dev)\/./.test(path))).toEqual([]);
      const packed = execFileSync('gzip', ['-c'], { input: plainTar([['piped', Buffer.from('through')]]) });
      execFileSync('docker', ['cp', '-', `${name}:/tmp`], { env, input: packed });
      expect(await t.ok('cp', `${name}:/tmp/piped`, '-')).toContain('through');
    });

    it('takes files and directories, over what is there and beside it', async () => {
      mkdirSync(join(here, 'src/in'), { recursive: true });
      writeFileSync(join(here, 'src/in/file'), 'content');
      writeFileSync(join(here, 'one'), 'one');
      symlinkSync('in/file', join(here, 'src/soft'));
      chownSync(join(here, 'one'), 3_000_000, 4_000_000);
      await t.ok('cp', join(here, 'one'), `${name}:/d/f`);
      await t.ok('cp', join(here, 'one'), `${name}:/link/sub/two`);
      await t.ok('cp', join(here, 'src'), `${name}:/d`);
      await t.ok('cp', join(here, 'src'), `${name}:/fresh`);
      await t.ok('cp', `${join(here, 'src')}/.`, `${name}:/d/sub`);
      await t.ok('cp', '-L', join(here, 'src/soft'), `${name}:/d/followed`);
      await t.ok('cp', '-a', join(here, 'one'), `${name}:/d/archived`);
      await t.ok('cp', `${name}:/d`, join(here, 'back'));
      for (const file of ['src/in/file', 'sub/in/file', 'followed']) {
        expect(readFileSync(join(here, 'back', file), 'utf8')).toBe('content');
      }
      expect(readFileSync(join(here, 'back/f'), 'utf8')).toBe('one');
      expect(readFileSync(join(here, 'back/sub/two'), 'utf8')).toBe('one');
      expect(readlinkSync(join(here, 'back/sub/soft'))).toBe('in/file');
      expect(await owners(name, '/d/archived')).toEqual(['3000000/4000000 archived']);
      await t.ok('cp', `${name}:/fresh`, here);
      expect(readFileSync(join(here, 'fresh/in/file'), 'utf8')).toBe('content');
      const changes = (await t.ok('diff', name)).split('\n');
      expect(changes).toEqual(expect.arrayContaining(['A /fresh', 'C /d/f', 'A /d/sub/two']));
      expect(changes.filter((line) => line.includes('dockerenv'))).toEqual([]);
    });

    it('goes through volumes and bind mounts, and leaves read-only ones alone', async () => {
      writeFileSync(join(here, 'x'), 'x');
      for (const place of ['vol', 'bind']) {
        await t.ok('cp', join(here, 'x'), `${name}:/${place}/from-${place}`);
        await t.ok('cp', `${name}:/${place}/from-${place}`, here);
        expect(readFileSync(join(here, `from-${place}`), 'utf8')).toBe('x');
      }
      expect(readFileSync(join(t.directory, `bind-${state}`, 'from-bind'), 'utf8')).toBe('x');
      expect(await t.ok('run', '--rm', '-v', `vol-${state}:/v`, 'busybox', 'ls', '/v')).toBe('from-vol');
      expect(await fails('cp', join(here, 'x'), `${name}:/ro`)).toContain('mounted volume is marked read-only');
    });

    it('refuses in Docker’s words', async () => {
      writeFileSync(join(here, 'x'), 'x');
      expect(await fails('cp', `${name}:/none`, here)).toContain(`Could not find the file /none in container ${name}`);
      expect(await fails('cp', join(here, 'x'), `${name}:/none/x`)).toContain(
        `Could not find the file /none in container ${name}`,
      );
      expect(await fails('cp', join(here, 'x'), `${name}:/d/f/`)).not.toBe('');
      expect(await fails('cp', here, `${name}:/d/f`)).toContain('cannot copy directory');
      expect(await fails('cp', join(here, 'x'), 'nobody:/x/y')).toContain('No such container: nobody');
      mkdirSync(join(here, 'f'));
      expect(await fails('cp', join(here, 'f'), `${name}:/d`)).toContain('cannot overwrite non-directory');
    });
  });

  it.each(['stopped', 'running'])('does not write to a read-only root that is %s', async (state) => {
    await make(state, 'locked', '--read-only', '-v', '/v');
    writeFileSync(join(here, 'big'), Buffer.alloc(24 << 20));
    expect(await fails('cp', join(here, 'big'), 'locked:/tmp')).toContain('container rootfs is marked read-only');
    await t.ok('cp', join(here, 'big'), 'locked:/v');
    await t.ok('cp', 'locked:/v/big', join(here, 'back'));
    expect(statSync(join(here, 'back')).size).toBe(24 << 20);
    await t.ok('rm', '-fv', 'locked');
  });

  it('sees the tmpfs mounts of a container that runs', async () => {
    await make('running', 'memory', '--tmpfs', '/mem');
    writeFileSync(join(here, 'x'), 'x');
    await t.ok('cp', join(here, 'x'), 'memory:/mem/x');
    expect(await t.ok('exec', 'memory', 'cat', '/mem/x')).toBe('x');
    await t.ok('rm', '-f', 'memory');
  });

  it('follows no link through the processes of the host', async () => {
    await make('running', 'pids', '--pid', 'host');
    await t.ok('exec', 'pids', 'ln', '-s', '/proc/1/root', '/escape');
    const secret = join(here, 'secret');
    writeFileSync(secret, 'x');
    expect(await fails('cp', `pids:/escape${secret}`, join(here, 'got'))).toContain('Could not find the file');
    expect(await fails('cp', secret, `pids:/escape${here}/planted`)).toContain('Could not find the file');
    expect(existsSync(join(here, 'planted'))).toBe(false);
    await t.ok('rm', '-f', 'pids');
  });

  it('works with dockerode', async () => {
    const docker = new Dockerode({ socketPath: t.engine.socket });
    const container = await docker.createContainer({ Image: 'tree', Cmd: ['cat', '/tmp/sent'] });
    await container.putArchive(plainTar([['sent', Buffer.from('by dockerode')]]), { path: '/tmp' });
    const parts: Buffer[] = [];
    for await (const part of await container.getArchive({ path: '/tmp/sent' })) parts.push(Buffer.from(part));
    expect(Buffer.concat(parts).includes('by dockerode')).toBe(true);
    await expect(container.putArchive(plainTar([]), { path: '/none' })).rejects.toMatchObject({ statusCode: 404 });
    await expect(container.putArchive(plainTar([]), { path: '/d/f' })).rejects.toMatchObject({ statusCode: 400 });
    await expect(container.infoArchive({ path: '/none' })).rejects.toMatchObject({ statusCode: 404 });
    await container.start();
    expect(((await container.wait()) as { StatusCode: number }).StatusCode).toBe(0);
    await container.remove();
  });

  it('tells of copies, and leaves nothing mounted', async () => {
    await make('stopped', 'told');
    const since = String(Math.floor(Date.now() / 1000));
    writeFileSync(join(here, 'x'), 'x');
    await t.ok('cp', join(here, 'x'), 'told:/tmp');
    await t.ok('cp', 'told:/tmp/x', join(here, 'y'));
    await t.ok('rm', 'told');
    const until = String(Math.ceil(Date.now() / 1000) + 1);
    const filters = ['--filter', 'container=told', '--format', '{{.Action}}'];
    const events = (await t.ok('events', '--since', since, '--until', until, ...filters)).split('\n');
    expect(events.filter((action) => action !== 'create')).toEqual(['extract-to-dir', 'archive-path', 'destroy']);
    await expect.poll(() => readdirSync(join(t.engine.execRoot, 'containers'))).toEqual([]);
    for (const pid of ['self', t.engine.launcherPid]) {
      const mounts = readFileSync(`/proc/${pid}/mountinfo`, 'utf8').split('\n');
      expect(mounts.filter((line) => line.includes(t.directory) && line.includes('archive-root'))).toEqual([]);
    }
  });
});
