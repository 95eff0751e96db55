import { randomBytes } from 'node:crypto';
import {
  closeSync,
  constants,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
  writeSync,
  readSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import {
  CLONE_NEWNS,
  SysError,
  bindMount,
  errnoName,
  getXattr,
  isMountPoint,
  listXattrs,
  makeDevice,
  makeShared,
  mkfifo,
  mknod,
  mount,
  mountOverlay,
  parseMountLine,
  POLLIN,
  POLLOUT,
  pipe2,
  poll,
  spliceToPipe,
  processStartTime,
  readMounts,
  setPipeSize,
  setXattr,
  setns,
  splitDevice,
  syncfs,
  umount,
  umountAll,
  unshare,
  utimensat,
} from './index.js';
import { mountOverlayByOptions } from './overlay.js';

const isRoot = process.getuid?.() === 0;
const base = mkdtempSync(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'flotilla-sys-'));
afterAll(() => {
  for (const { target } of readMounts()) if (target.startsWith(base)) umountAll(target);
  rmSync(base, { recursive: true, force: true });
});
let count = 0;
function freshDir(name = `d${++count}`): string {
  const path = join(base, name);
  mkdirSync(path, { recursive: true });
  return path;
}
function codeOf(action: () => unknown): string {
  try {
    action();
  } catch (error) {
    if (error instanceof SysError) return error.code;
    throw error;
  }
  return 'none';
}

describe('errors', () => {
  it('carry code, errno and what was tried', () => {
    try {
      umount('/nonexistent/dir');
      expect.unreachable();
    } catch (error) {
      expect(error).toBeInstanceOf(SysError);
      expect(error).toMatchObject({ code: 'ENOENT', errno: 2, what: 'unmount /nonexistent/dir' });
    }
  });
  it('name unknown numbers', () => {
    expect(errnoName(1)).toBe('EPERM');
    expect(errnoName(9999)).toBe('errno 9999');
  });
  it('refuse paths that hold a NUL byte', () => {
    expect(codeOf(() => mkfifo('a\0b', 0o600))).toBe('EINVAL');
    expect(codeOf(() => mkfifo(Buffer.from('a\0b'), 0o600))).toBe('EINVAL');
  });
});

describe('files', () => {
  it('makes FIFOs, also by names that are not UTF-8', () => {
    const dir = freshDir();
    mkfifo(join(dir, 'fifo'), 0o600);
    mkfifo(Buffer.concat([Buffer.from(`${dir}/`), Buffer.from([0xff, 0xfe])]), 0o600);
    expect(lstatSync(join(dir, 'fifo')).isFIFO()).toBe(true);
    expect(readdirSync(dir, { encoding: 'latin1' })).toContain('\xff\xfe');
    expect(codeOf(() => mkfifo(join(dir, 'fifo'), 0o600))).toBe('EEXIST');
  });
  it.runIf(isRoot)('makes device nodes', () => {
    const path = join(freshDir(), 'null');
    mknod(path, constants.S_IFCHR | 0o666, makeDevice(1, 3));
    expect(lstatSync(path).rdev).toBe(lstatSync('/dev/null').rdev);
  });
  it('puts device numbers together and apart', () => {
    for (const [major, minor] of [
      [0, 0],
      [8, 17],
      [259, 300000],
      [4095, 0xfffff],
      [0xfffff, 0xffffff],
    ] as const) {
      expect(splitDevice(makeDevice(major, minor))).toEqual({ major, minor });
    }
  });
  it('sets times before 1970 and below a microsecond, of a link itself', () => {
    const dir = freshDir();
    const link = join(dir, 'link');
    symlinkSync('nowhere', link);
    utimensat(link, { seconds: -5, nanoseconds: 123456789 });
    expect(lstatSync(link, { bigint: true }).mtimeNs).toBe(-5n * 1000000000n + 123456789n);
  });
  it('is synced to disk with its whole file system', () => {
    const path = join(freshDir(), 'file');
    writeFileSync(path, 'x');
    const fd = openSync(path, 'r');
    syncfs(fd);
    closeSync(fd);
    expect(codeOf(() => syncfs(fd))).toBe('EBADF');
  });
});

describe.runIf(isRoot)('extended attributes', () => {
  it('are bytes, and absent ones are undefined', () => {
    const path = join(freshDir(), 'file');
    writeFileSync(path, '');
    const value = randomBytes(40);
    expect(listXattrs(path)).toEqual([]);
    expect(getXattr(path, 'trusted.flotilla')).toBeUndefined();
    setXattr(path, 'trusted.flotilla', value);
    setXattr(path, 'trusted.empty', Buffer.alloc(0));
    expect(getXattr(path, 'trusted.flotilla')).toEqual(value);
    expect(getXattr(path, 'trusted.empty')).toEqual(Buffer.alloc(0));
    expect(listXattrs(path).sort()).toEqual(['trusted.empty', 'trusted.flotilla']);
  });
  it('say which path is missing', () => {
    expect(() => getXattr(join(base, 'nothing'), 'user.x')).toThrow(/nothing: ENOENT/);
  });
});

describe('pipes', () => {
  it('carry bytes and take a size', () => {
    const { readFd, writeFd } = pipe2();
    expect(setPipeSize(readFd, 1 << 20)).toBe(1 << 20);
    writeSync(writeFd, 'hello');
    const buffer = Buffer.alloc(5);
    readSync(readFd, buffer);
    expect(buffer.toString()).toBe('hello');
    closeSync(readFd);
    closeSync(writeFd);
    expect(codeOf(() => setPipeSize(readFd, 4096))).toBe('EBADF');
  });
});

describe('spliceToPipe and poll', () => {
  it('move a file into a pipe as far as it has room, and tell who is ready', () => {
    const path = join(base, 'spliced');
    writeFileSync(path, 'x'.repeat(10_000));
    const file = openSync(path, 'r');
    const { readFd, writeFd } = pipe2();
    setPipeSize(readFd, 4096);
    expect(spliceToPipe(file, writeFd, 3000)).toBe(3000);
    const buffer = Buffer.alloc(10_000);
    expect(readSync(readFd, buffer)).toBe(3000);
    const moved = spliceToPipe(file, writeFd, 10_000) ?? 0;
    expect(moved).toBeGreaterThan(0);
    expect(spliceToPipe(file, writeFd, 10_000)).toBeUndefined();
    const ends = [
      { fd: readFd, events: POLLIN },
      { fd: writeFd, events: POLLOUT },
      { fd: -1, events: POLLIN },
    ];
    expect(poll(ends)).toEqual([true, false, false]);
    expect(readSync(readFd, buffer)).toBe(moved);
    expect(poll(ends)).toEqual([false, true, false]);
    let total = 3000 + moved;
    for (let more = spliceToPipe(file, writeFd, 10_000); more !== 0; more = spliceToPipe(file, writeFd, 10_000)) {
      if (more === undefined) readSync(readFd, buffer);
      else total += more;
    }
    expect(total).toBe(10_000);
    closeSync(readFd);
    writeFileSync(path, 'more', { flag: 'a' });
    expect(codeOf(() => spliceToPipe(file, writeFd, 1))).toBe('EPIPE');
    closeSync(writeFd);
    closeSync(file);
  });
});

describe('processes', () => {
  it('have a start time until they are gone', () => {
    const own = processStartTime(process.pid);
    expect(own).toBeGreaterThan(0);
    expect(processStartTime('self')).toBe(own);
    expect(processStartTime(0x3fffffff)).toBeUndefined();
  });
});

describe('mountinfo', () => {
  it('is read with optional fields and escapes', () => {
    const line = '36 35 98:0 /mnt1 /a\\040b rw,noatime shared:1 master:2 - ext3 /dev/root rw,errors=continue';
    expect(parseMountLine(line)).toEqual({
      id: 36,
      parentId: 35,
      device: '98:0',
      root: '/mnt1',
      target: '/a b',
      options: ['rw', 'noatime'],
      optional: ['shared:1', 'master:2'],
      fstype: 'ext3',
      source: '/dev/root',
      superOptions: ['rw', 'errors=continue'],
    });
  });
});

describe.runIf(isRoot)('mounts', () => {
  it('come and go; taking off what is not there is fine', () => {
    const dir = freshDir();
    mount('tmpfs', dir, 'tmpfs', 0, 'size=64k');
    mount('tmpfs', dir, 'tmpfs', 0, 'size=64k');
    expect(isMountPoint(dir)).toBe(true);
    umountAll(dir);
    expect(isMountPoint(dir)).toBe(false);
    umountAll(dir);
    umountAll(join(dir, 'missing'));
  });
  it('bind read-only', () => {
    const source = freshDir();
    const target = freshDir();
    bindMount(source, target, { readOnly: true });
    expect(() => writeFileSync(join(target, 'x'), '')).toThrow(/EROFS/);
    writeFileSync(join(source, 'x'), '');
    umount(target);
  });
  it('become shared once', () => {
    const dir = freshDir();
    makeShared(dir);
    makeShared(dir);
    const entries = readMounts().filter((entry) => entry.target === dir);
    expect(entries).toHaveLength(1);
    expect(entries[0]?.optional.join()).toMatch(/^shared:\d+/);
    umountAll(dir);
  });
  it('can be entered by a namespace descriptor', () => {
    const own = openSync('/proc/self/ns/mnt', 'r');
    const uts = openSync('/proc/self/ns/uts', 'r');
    setns(uts);
    expect(codeOf(() => setns(uts, CLONE_NEWNS))).toBe('EINVAL');
    expect(codeOf(() => unshare(0x1))).toBe('EINVAL');
    closeSync(own);
    closeSync(uts);
  });
});

describe.runIf(isRoot)('mountOverlay', () => {
  function layers(number: number, parent = freshDir()): string[] {
    return Array.from({ length: number }, (_, index) => {
      const dir = join(parent, randomBytes(32).toString('hex'), 'diff');
      mkdirSync(dir, { recursive: true });
      writeFileSync(join(dir, `file${index}`), '');
      writeFileSync(join(dir, 'top'), String(index));
      return dir;
    });
  }
  it('shows 300 layers, the first on top', () => {
    const target = freshDir();
    mountOverlay({ lower: layers(300), upper: freshDir(), work: freshDir(), target });
    expect(readdirSync(target)).toHaveLength(301);
    expect(readFileSync(join(target, 'top'), 'utf8')).toBe('0');
    umount(target);
  });
  it('writes to the upper directory only', () => {
    const lower = layers(1);
    const upper = freshDir();
    const target = freshDir();
    mountOverlay({ lower, upper, work: freshDir(), target });
    rmSync(join(target, 'top'));
    expect(lstatSync(join(upper, 'top')).isCharacterDevice()).toBe(true);
    expect(existsSync(join(lower[0] ?? '', 'top'))).toBe(true);
    umount(target);
  });
  it('takes paths too long for fsconfig, with the characters that mount options need escaped', () => {
    const target = freshDir();
    const parent = freshDir(`deep${'/x,y:z'.repeat(30)}/${'n'.repeat(150)}`);
    mountOverlay({ lower: layers(3, parent), upper: freshDir(), work: freshDir(), target });
    expect(readdirSync(target)).toHaveLength(4);
    umount(target);
  });
  it('mounts 150 layers the older way too', () => {
    const target = freshDir();
    mountOverlayByOptions({ lower: layers(150), upper: freshDir(), work: freshDir(), target });
    expect(readdirSync(target)).toHaveLength(151);
    expect(readFileSync(join(target, 'top'), 'utf8')).toBe('0');
    umount(target);
  });
  it('is read-only without an upper directory, also with one layer', () => {
    for (const number of [1, 2]) {
      const target = freshDir();
      mountOverlay({ lower: layers(number), target });
      expect(readFileSync(join(target, 'top'), 'utf8')).toBe('0');
      expect(() => writeFileSync(join(target, 'x'), '')).toThrow(/EROFS/);
      umount(target);
    }
  });
  it('names the missing directory and leaves nothing mounted', () => {
    const target = freshDir();
    const missing = join(base, 'no-such-layer');
    const attempt = () => mountOverlay({ lower: [missing, ...layers(1)], upper: freshDir(), work: freshDir(), target });
    expect(attempt).toThrow(/no-such-layer.*ENOENT/);
    expect(isMountPoint(target)).toBe(false);
    expect(codeOf(() => mountOverlay({ lower: [], target }))).toBe('EINVAL');
    expect(statSync(target).isDirectory()).toBe(true);
  });
});
