import { execFileSync } from 'node:child_process';
import {
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { isEngineError } from '@flotilla/errors';
import { isMountPoint, umountAll } from '@flotilla/sys';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { RootfsWorkers } from './rootfs-threads.js';

describe.skipIf(process.getuid?.() !== 0)('root file systems (needs root and overlayfs)', () => {
  let workers: RootfsWorkers;
  let base: string;
  let count = 0;
  let dir: string;
  let lower: string;
  let target: string;

  beforeAll(async () => {
    base = mkdtempSync('/dev/shm/flotilla-rootfs-');
    workers = await RootfsWorkers.start();
  });
  afterAll(async () => {
    await workers[Symbol.asyncDispose]();
    for (let i = 1; i <= count; i++) umountAll(join(base, String(i), 'rootfs'));
    rmSync(base, { recursive: true, force: true });
  });
  beforeEach(() => {
    dir = join(base, String(++count));
    lower = join(dir, 'lower');
    target = join(dir, 'rootfs');
    for (const name of ['lower/etc', 'upper', 'work', 'volume']) mkdirSync(join(dir, name), { recursive: true });
    writeFileSync(join(lower, 'etc/passwd'), 'root:x:0:0::/:/bin/sh\napp:x:7:8::/:/bin/sh\n');
    writeFileSync(join(lower, 'etc/group'), 'root:x:0:\n');
  });
  const open = (options: { user?: string; workingDir?: string } = {}) =>
    workers.open({
      target,
      lower: [lower],
      upper: join(dir, 'upper'),
      work: join(dir, 'work'),
      user: options.user ?? '',
      groups: [],
      workingDir: options.workingDir ?? '',
    });

  it('keeps nothing open of a container that ended before its domain was named', async () => {
    const open = () => readdirSync('/proc/self/fd').filter((fd) => targetOf(fd).startsWith('uts:')).length;
    const before = open();
    await expect(workers.nameDomain(2 ** 30, 'example')).rejects.toThrow('ENOENT');
    expect(open()).toBe(before);
  });

  it('mounts, resolves the user, makes the working directory, and unmounts', async () => {
    await expect(open({ user: 'app', workingDir: '/srv/a/b' })).resolves.toEqual({
      user: { uid: 7, gid: 8, additionalGids: [8] },
    });
    expect(isMountPoint(target)).toBe(true);
    expect(statSync(join(dir, 'upper/srv/a/b')).mode & 0o7777).toBe(0o755);
    await workers.close(target);
    await workers.close(target);
    expect(existsSync(target)).toBe(false);
  });

  it('shows a whole copy as it is, and says which driver a container needs that cannot be mounted', async () => {
    await workers.open({ target, lower: [], upper: lower, work: '', user: 'app', groups: [], workingDir: '/srv' });
    expect(isMountPoint(target)).toBe(true);
    writeFileSync(join(target, 'written'), 'x');
    expect(existsSync(join(lower, 'written')) && existsSync(join(lower, 'srv'))).toBe(true);
    await workers.close(target);
    const upper = '/proc/self';
    await expect(
      workers.open({ target, lower: [lower], upper, work: join(dir, 'work'), user: '', groups: [], workingDir: '' }),
    ).rejects.toThrow(/^the container was made with storage driver overlay2: mount overlay on /);
    expect(isMountPoint(target)).toBe(false);
  });

  it('leaves nothing mounted when the user is unknown', async () => {
    const failure = await open({ user: 'ghost' }).catch((error: unknown) => error);
    expect(isEngineError(failure, 'invalidArgument')).toBe(true);
    expect(String(failure)).toContain('unable to find user ghost: no matching entries in passwd file');
    expect(existsSync(target)).toBe(false);
  });

  it('does not follow links of the image to the host', async () => {
    const outside = join(dir, 'outside');
    mkdirSync(outside);
    symlinkSync(outside, join(lower, 'absolute'));
    symlinkSync('../../../../../../../../..' + outside, join(lower, 'relative'));
    rmSync(join(lower, 'etc/passwd'));
    writeFileSync(join(outside, 'passwd'), 'host:x:1:1::/:\n');
    symlinkSync(join(outside, 'passwd'), join(lower, 'etc/passwd'));
    await expect(open({ user: 'host' })).rejects.toThrow('unable to find user host');
    // A dangling link ends in the image's own root: dockerd and runc make the directory there or refuse; the host sees nothing.
    await open({ workingDir: '/relative/x' }).catch(() => undefined);
    expect(existsSync(join(outside, 'x'))).toBe(false);
    await workers.close(target);
  });

  it('does not block on a FIFO in place of a file', async () => {
    rmSync(join(lower, 'etc/passwd'));
    execFileSync('mkfifo', [join(lower, 'etc/passwd')]);
    await expect(open({ user: '3' })).resolves.toEqual({ user: { uid: 3, gid: 0, additionalGids: [0] } });
    await workers.close(target);
  });

  it('says which working directory cannot be', async () => {
    writeFileSync(join(lower, 'file'), '');
    await expect(open({ workingDir: '/file' })).rejects.toThrow('Cannot mkdir: /file is not a directory');
    await expect(open({ workingDir: '/file/below' })).rejects.toThrow('Cannot mkdir: /file/below is not a directory');
  });

  it('copies image content into an empty volume, whole', async () => {
    const data = join(lower, 'data');
    mkdirSync(join(data, 'sub'), { recursive: true });
    writeFileSync(join(data, 'tool'), '#!/bin/sh\n');
    execFileSync('chown', ['12:34', join(data, 'tool')]);
    execFileSync('chmod', ['4755', join(data, 'tool')]);
    execFileSync('chmod', ['1777', data]);
    execFileSync('chown', ['5:6', data]);
    execFileSync('ln', [join(data, 'tool'), join(data, 'sub/hard')]);
    execFileSync('touch', ['-d', '2001-02-03T04:05:06.123456789Z', join(data, 'sub')]);
    symlinkSync('/etc/shadow', join(data, 'link'));
    symlinkSync('data', join(lower, 'alias'));
    await open();
    const volume = join(dir, 'volume');
    await workers.copyUp({ rootfs: target, destination: '/alias', volume, staging: '.copying' });
    expect(statSync(volume)).toMatchObject({ uid: 5, gid: 6 });
    expect(statSync(volume).mode & 0o7777).toBe(0o1777);
    const tool = statSync(join(volume, 'tool'));
    expect(tool).toMatchObject({ uid: 12, gid: 34, nlink: 2 });
    expect(tool.mode & 0o7777).toBe(0o4755);
    expect(statSync(join(volume, 'sub/hard')).ino).toBe(tool.ino);
    expect(lstatSync(join(volume, 'sub'), { bigint: true }).mtimeNs % 1_000_000_000n).toBe(123456789n);
    expect(readlinkSync(join(volume, 'link'))).toBe('/etc/shadow');
    await workers.close(target);
  });

  it('makes a copy again that was cut, and leaves what is there', async () => {
    const data = join(lower, 'data');
    mkdirSync(join(data, 'sub'), { recursive: true });
    for (const name of ['one', 'two', 'sub/three']) writeFileSync(join(data, name), `image's ${name}`);
    execFileSync('touch', ['-d', '2001-02-03T04:05:06Z', data]);
    await open();
    const volume = join(dir, 'volume');
    mkdirSync(join(volume, '.copying/sub'), { recursive: true });
    writeFileSync(join(volume, '.copying/two'), 'ima');
    symlinkSync('/', join(volume, '.copying/link'));
    writeFileSync(join(volume, 'one'), 'written since');
    await workers.copyUp({ rootfs: target, destination: '/data', volume, staging: '.copying' });
    expect(readdirSync(volume).sort()).toEqual(['one', 'sub', 'two']);
    expect(readFileSync(join(volume, 'one'), 'utf8')).toBe('written since');
    expect(readFileSync(join(volume, 'two'), 'utf8')).toBe("image's two");
    expect(readFileSync(join(volume, 'sub/three'), 'utf8')).toBe("image's sub/three");
    expect(statSync(volume).mtime).toEqual(new Date('2001-02-03T04:05:06Z'));
    await workers.close(target);
  });

  it('keeps a volume that has something, and takes no path through a link to the host', async () => {
    const outside = join(dir, 'outside');
    mkdirSync(outside);
    writeFileSync(join(outside, 'secret'), 'x');
    symlinkSync(outside, join(lower, 'escape'));
    mkdirSync(join(lower, 'data'));
    writeFileSync(join(lower, 'data/a'), 'image');
    await open();
    const volume = join(dir, 'volume');
    await workers.copyUp({ rootfs: target, destination: '/escape', volume, staging: '.copying' });
    await workers.copyUp({ rootfs: target, destination: '/missing', volume, staging: '.copying' });
    expect(existsSync(join(volume, 'secret'))).toBe(false);
    writeFileSync(join(volume, 'a'), 'mine');
    await workers.copyUp({ rootfs: target, destination: '/data', volume, staging: '.copying' });
    expect(readFileSync(join(volume, 'a'), 'utf8')).toBe('mine');
    await workers.close(target);
  });

  it('does not disturb the root of the other threads', async () => {
    await open();
    expect(existsSync(base)).toBe(true);
    await expect(import('node:fs/promises').then((fs) => fs.readdir(base))).resolves.toContain(String(count));
    await workers.close(target);
  });
});

/** What a descriptor of this process is of; empty when it was closed meanwhile. */
function targetOf(fd: string): string {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`);
  } catch {
    return '';
  }
}
