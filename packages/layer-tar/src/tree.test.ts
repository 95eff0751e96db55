import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { isEngineError } from '@flotilla/errors';
import { getXattr, makeDevice, mkfifo, mknod, setXattr, utimensat } from '@flotilla/sys';
import { afterAll, describe, expect, it } from 'vitest';
import { TarApplier, TarParser, TarWriter, packTree } from './index.js';
import type { ApplyOptions, PackOptions, TarHeader } from './index.js';

const isRoot = process.getuid?.() === 0;
const base = mkdtempSync(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'flotilla-tree-'));
afterAll(() => rmSync(base, { recursive: true, force: true }));
let count = 0;
function freshDir(): string {
  const path = join(base, `d${++count}`, 'root');
  mkdirSync(path, { recursive: true });
  return path;
}

function archiveOf(...members: [TarHeader, string?][]): Buffer {
  const parts: Buffer[] = [];
  const writer = new TarWriter((bytes) => parts.push(Buffer.from(bytes)));
  for (const [header, content = ''] of members) {
    writer.entry({ mode: header.type === 'directory' ? 0o755 : 0o644, ...header, size: content.length });
    if (content !== '') writer.data(Buffer.from(content));
  }
  writer.finish();
  return Buffer.concat(parts);
}

function apply(root: string, archive: Buffer, options: Partial<ApplyOptions> = {}): TarApplier {
  const applier = new TarApplier({ root, whiteouts: 'overlay', ...options });
  try {
    const parser = new TarParser(applier);
    for (let at = 0; at < archive.length; at += 10000) parser.write(archive.subarray(at, at + 10000));
    parser.end();
    applier.finish();
  } finally {
    applier.abort();
  }
  return applier;
}

function pack(root: string, options: Partial<PackOptions> = {}): Buffer {
  const parts: Buffer[] = [];
  const writer = new TarWriter((bytes) => parts.push(Buffer.from(bytes)));
  packTree(root, writer, { whiteouts: 'overlay', ...options });
  writer.finish();
  return Buffer.concat(parts);
}

function failure(action: () => unknown): string {
  try {
    action();
  } catch (error) {
    if (isEngineError(error)) return `${error.kind}: ${error.message}`;
    throw error;
  }
  return 'none';
}

const file = (name: string): TarHeader => ({ name, type: 'file' });
const dir = (name: string): TarHeader => ({ name, type: 'directory' });
const symlink = (name: string, linkname: string): TarHeader => ({ name, type: 'symlink', linkname });

describe.runIf(isRoot)('a tree through an archive', () => {
  it('keeps everything that a layer can hold', () => {
    const root = freshDir();
    const sub = join(root, 'sub');
    mkdirSync(sub);
    writeFileSync(join(sub, 'suid'), 'program');
    chownSync(join(sub, 'suid'), 1000, 300000);
    chmodSync(join(sub, 'suid'), 0o6755);
    const capability = Buffer.from('0100000200040000000000000000000000000000', 'hex');
    setXattr(join(sub, 'suid'), 'security.capability', capability);
    linkSync(join(sub, 'suid'), join(root, 'also'));
    writeFileSync(Buffer.concat([Buffer.from(`${root}/`), Buffer.from([0xff, 0x80])]), 'bytes');
    symlinkSync('../../nowhere', join(sub, 'link'));
    mkfifo(join(root, 'fifo'), 0o600);
    mknod(join(root, 'null'), 0o020666, makeDevice(1, 3));
    mknod(join(root, 'gone'), 0o020000, 0n);
    setXattr(sub, 'trusted.overlay.opaque', Buffer.from('y'));
    chmodSync(sub, 0o2775);
    chownSync(sub, 0, 50);
    utimensat(join(sub, 'link'), { seconds: -7, nanoseconds: 0 });
    utimensat(sub, { seconds: 1000, nanoseconds: 0 });
    utimensat(join(root, 'gone'), { seconds: 1000, nanoseconds: 0 });

    const archive = pack(root);
    const copy = freshDir();
    apply(copy, archive);
    expect(readdirSync(copy, { encoding: 'latin1' }).sort()).toEqual([
      'also',
      'fifo',
      'gone',
      'null',
      'sub',
      '\xff\x80',
    ]);
    const suid = lstatSync(join(copy, 'sub/suid'));
    expect(suid).toMatchObject({ uid: 1000, gid: 300000, nlink: 2 });
    expect(suid.mode & 0o7777).toBe(0o6755);
    expect(lstatSync(join(copy, 'also')).ino).toBe(suid.ino);
    expect(getXattr(join(copy, 'also'), 'security.capability')).toEqual(capability);
    expect(readlinkSync(join(copy, 'sub/link'))).toBe('../../nowhere');
    expect(lstatSync(join(copy, 'sub/link')).mtimeMs).toBe(-7000);
    expect(lstatSync(join(copy, 'null')).rdev).toBe(lstatSync('/dev/null').rdev);
    expect(lstatSync(join(copy, 'gone')).rdev).toBe(0);
    expect(lstatSync(join(copy, 'fifo')).isFIFO()).toBe(true);
    const copiedSub = lstatSync(join(copy, 'sub'));
    expect(copiedSub).toMatchObject({ mtimeMs: 1000000, gid: 50 });
    expect(copiedSub.mode & 0o7777).toBe(0o2775);
    expect(getXattr(join(copy, 'sub'), 'trusted.overlay.opaque')?.toString()).toBe('y');
    // A whiteout's time is of no account, and is not kept.
    utimensat(join(copy, 'gone'), { seconds: 1000, nanoseconds: 0 });
    expect(pack(copy)).toEqual(archive);
    const names = execFileSync('tar', ['-tf', '-'], { input: archive }).toString();
    expect(names).toContain('.wh.gone\n');
    expect(names).toContain('sub/.wh..wh..opq\n');
  });

  it('gives files in set-gid directories the owner of the archive', () => {
    const root = freshDir();
    apply(root, archiveOf([{ ...dir('staff/'), mode: 0o2775, gid: 50 }], [file('staff/f'), 'x'], [dir('staff/d/')]));
    expect(lstatSync(join(root, 'staff/f')).gid).toBe(0);
    expect(lstatSync(join(root, 'staff/d')).gid).toBe(0);
    expect(lstatSync(join(root, 'staff/d')).mode & 0o7777).toBe(0o755);
  });

  it('is packed under a name, in part, or from a single file', () => {
    const root = freshDir();
    mkdirSync(join(root, 'a/b'), { recursive: true });
    writeFileSync(join(root, 'a/b/f'), 'x');
    writeFileSync(join(root, 'c'), 'y');
    const names = (archive: Buffer) =>
      execFileSync('tar', ['-tf', '-'], { input: archive }).toString().trim().split('\n');
    expect(names(pack(root))).toEqual(['a/', 'a/b/', 'a/b/f', 'c']);
    expect(names(pack(root, { name: 'top' }))).toEqual(['top/', 'top/a/', 'top/a/b/', 'top/a/b/f', 'top/c']);
    expect(names(pack(join(root, 'c'), { name: 'see' }))).toEqual(['see']);
    expect(names(pack(root, { include: (path) => path !== 'a/b' }))).toEqual(['a/', 'c']);
  });
});

describe.runIf(isRoot)('TarApplier', () => {
  it('replaces what is in the way, whatever it is', () => {
    const root = freshDir();
    const archive = archiveOf(
      [dir('a/')],
      [file('a/f'), 'x'],
      [file('a'), 'now a file'],
      [file('b'), 'x'],
      [dir('b/')],
      [symlink('c', 'a')],
      [file('c'), 'no link'],
      [file('\xff/\xfe'), 'x'],
      [symlink('\xff', 'a')],
    );
    // A symbolic link counts with the length of its target, as in dockerd.
    expect(apply(root, archive).fileBytes).toBe(22);
    expect(readFileSync(join(root, 'a'), 'utf8')).toBe('now a file');
    expect(lstatSync(join(root, 'b')).isDirectory()).toBe(true);
    expect(readFileSync(join(root, 'c'), 'utf8')).toBe('no link');
    expect(readlinkSync(Buffer.concat([Buffer.from(`${root}/`), Buffer.from([0xff])]))).toBe('a');
  });

  it('lets a whiteout spare what the same layer made', () => {
    const root = freshDir();
    apply(root, archiveOf([file('d/f'), 'x'], [file('d/.wh.f')], [file('d/.wh.g')], [file('.wh..wh.plnk')]));
    expect(readFileSync(join(root, 'd/f'), 'utf8')).toBe('x');
    expect(lstatSync(join(root, 'd/g')).rdev).toBe(0);
    expect(readdirSync(root)).toEqual(['d']);
  });

  it('keeps hostile names inside', () => {
    const root = freshDir();
    const outside = join(root, '..', 'outside');
    mkdirSync(outside);
    writeFileSync(join(outside, 'victim'), 'untouched');
    const escape = `${'../'.repeat(20)}${outside.slice(1)}`;
    apply(
      root,
      archiveOf(
        [file('../escaped'), 'x'],
        [file('/absolute'), 'x'],
        [file('a/../../../b'), 'x'],
        [symlink('up', '../outside')],
        [symlink('abs', outside)],
        [file('up/victim'), 'evil'],
        [file('abs/victim'), 'evil'],
        [file('up/.wh.victim')],
        [file('abs/.wh..wh..opq')],
        [symlink('deep', escape)],
        [dir('deep/new/')],
        [file('deep/new/victim'), 'evil'],
        [symlink('victim-link', `${outside}/victim`)],
        [file('victim-link'), 'replaced, not followed'],
      ),
    );
    expect(readdirSync(join(root, '..')).sort()).toEqual(['outside', 'root']);
    expect(readdirSync(outside)).toEqual(['victim']);
    expect(readFileSync(join(outside, 'victim'), 'utf8')).toBe('untouched');
    expect(getXattr(outside, 'trusted.overlay.opaque')).toBeUndefined();
    expect(readdirSync(root)).toEqual(expect.arrayContaining(['escaped', 'absolute', 'b', 'outside']));
  });

  it('refuses what cannot be, naming the member', () => {
    const cases: [[TarHeader, string?][], RegExp][] = [
      [
        [[{ name: 'h', type: 'hardlink', linkname: '../../../etc/shadow-nothing' }]],
        /^dataLoss: link \/h: no such file/,
      ],
      [[[{ name: 'h', type: 'hardlink', linkname: '/' }]], /invalid hardlink h/],
      [[[{ name: 'h', type: 'hardlink', linkname: 'h' }]], /to itself/],
      [[[symlink('a', 'b')], [symlink('b', 'a')], [file('a/f')]], /too many levels of symbolic links/],
      [[[file('f')], [file('f/below')]], /f: not a directory/],
      [[[file('.wh.')]], /invalid whiteout/],
      [[[file('d/.wh..')]], /invalid whiteout/],
      [[[file('n'.repeat(5000))]], /file name too long/],
      [[[file('n'.repeat(300))]], /ENAMETOOLONG/],
      [[[symlink('l', '')]], /^dataLoss: invalid archive member \/l/],
    ];
    for (const [members, expected] of cases) {
      expect(failure(() => apply(freshDir(), archiveOf(...members)))).toMatch(expected);
    }
  });

  it('drops attributes of the overlay itself and unknown ones', () => {
    const root = freshDir();
    const xattrs: [string, string][] = [
      ['trusted.overlay.redirect', '/etc'],
      ['trusted.kept', '\x00\xff'],
      ['nonsense', 'x'],
    ];
    apply(root, archiveOf([{ ...file('f'), xattrs }]));
    expect(getXattr(join(root, 'f'), 'trusted.overlay.redirect')).toBeUndefined();
    expect(getXattr(join(root, 'f'), 'trusted.kept')).toEqual(Buffer.from([0, 255]));
  });

  it('takes whiteouts literally, sets one owner and keeps kinds when asked (docker cp)', () => {
    const root = freshDir();
    mkdirSync(join(root, 'd'));
    writeFileSync(join(root, 'f'), '');
    apply(root, archiveOf([file('x/.wh.y'), 'z']), { whiteouts: 'literal', owner: { uid: 7, gid: 8 } });
    expect(lstatSync(join(root, 'x/.wh.y'))).toMatchObject({ uid: 7, gid: 8, size: 1 });
    expect(lstatSync(join(root, 'x'))).toMatchObject({ uid: 7, gid: 8 });
    const strict = { whiteouts: 'literal', noOverwriteDirNonDir: true } as const;
    expect(failure(() => apply(root, archiveOf([file('d')]), strict))).toMatch(
      /cannot overwrite directory ".*\/d" with non-directory "d"/,
    );
    expect(failure(() => apply(root, archiveOf([dir('f/')]), strict))).toMatch(
      /cannot overwrite non-directory ".*\/f" with directory "f\/"/,
    );
    apply(root, archiveOf([dir('d/')], [file('f'), 'new']), strict);
    expect(readFileSync(join(root, 'f'), 'utf8')).toBe('new');
  });

  it('keeps holes as holes', () => {
    const source = freshDir();
    execFileSync('truncate', ['-s', '8M', join(source, 'holes')]);
    execFileSync(
      'dd',
      ['if=/dev/zero', `of=${join(source, 'holes')}`, 'bs=1', 'count=1', 'seek=4194304', 'conv=notrunc'],
      { stdio: 'ignore' },
    );
    const archive = execFileSync('tar', ['-S', '-C', source, '-cf', '-', 'holes']);
    const root = freshDir();
    apply(root, archive);
    const stats = lstatSync(join(root, 'holes'));
    expect(stats.size).toBe(8 << 20);
    expect(stats.blocks * 512).toBeLessThan(1 << 20);
  });
});
