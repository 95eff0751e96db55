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
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { getXattr, makeDevice, mkfifo, mknod, setXattr, utimensat } from '@flotilla/sys';
import { afterAll, beforeEach, describe, expect, it } from 'vitest';
import { TarApplier, TarParser, TarWriter, compareTrees, copyMergedTree, packChanges } from './index.js';

const base = mkdtempSync(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'flotilla-copy-'));
afterAll(() => rmSync(base, { recursive: true, force: true }));
let count = 0;
function freshDir(): string {
  const path = join(base, `d${++count}`);
  mkdirSync(path);
  return path;
}

describe.runIf(process.getuid?.() === 0)('a copy of layers', () => {
  let low: string;
  let high: string;
  let tree: string;
  beforeEach(() => {
    [low, high, tree] = [freshDir(), freshDir(), freshDir()];
    mkdirSync(join(low, 'sub'));
    mkdirSync(join(low, 'opaque/inner'), { recursive: true });
    writeFileSync(join(low, 'opaque/hidden'), 'x');
    writeFileSync(join(low, 'gone'), 'x');
    writeFileSync(join(low, 'kept'), 'low');
    writeFileSync(join(low, 'replaced'), 'low');
    mkdirSync(join(high, 'opaque'));
    setXattr(join(high, 'opaque'), 'trusted.overlay.opaque', Buffer.from('y'));
    writeFileSync(join(high, 'opaque/shown'), 'x');
    mknod(join(high, 'gone'), 0o020000, 0n);
    writeFileSync(join(high, 'replaced'), 'high');
  });
  const copy = () => copyMergedTree([high, low], tree);

  it('is what an overlay shows, in everything that a file has', () => {
    const suid = join(low, 'sub/suid');
    writeFileSync(suid, 'program');
    chownSync(suid, 1000, 300000);
    chmodSync(suid, 0o6755);
    const capability = Buffer.from('0100000200040000000000000000000000000000', 'hex');
    setXattr(suid, 'security.capability', capability);
    utimensat(suid, { seconds: -7, nanoseconds: 123456789 });
    linkSync(suid, join(low, 'also'));
    symlinkSync('/etc/shadow', join(low, 'sub/link'));
    mkfifo(join(low, 'fifo'), 0o600);
    mknod(join(low, 'null'), 0o020666, makeDevice(1, 3));
    writeFileSync(Buffer.concat([Buffer.from(`${low}/`), Buffer.from([0xff, 0x80])]), 'bytes');
    const sparse = join(low, 'sparse');
    writeFileSync(sparse, 'start');
    truncateSync(sparse, 40_000_000);
    writeFileSync(sparse, 'end', { flag: 'a' });
    chmodSync(join(low, 'sub'), 0o2775);
    utimensat(join(low, 'sub'), { seconds: 1000, nanoseconds: 5 });
    copy();

    expect(readdirSync(tree, { encoding: 'latin1' }).sort()).toEqual(
      ['also', 'fifo', 'kept', 'null', 'opaque', 'replaced', 'sparse', 'sub', '\xff\x80'].sort(),
    );
    expect(readdirSync(join(tree, 'opaque'))).toEqual(['shown']);
    expect(getXattr(join(tree, 'opaque'), 'trusted.overlay.opaque')).toBeUndefined();
    expect(readFileSync(join(tree, 'replaced'), 'utf8')).toBe('high');
    const copied = lstatSync(join(tree, 'sub/suid'), { bigint: true });
    expect(copied).toMatchObject({ uid: 1000n, gid: 300000n, nlink: 2n, mtimeNs: -6_876_543_211n });
    expect(copied.mode & 0o7777n).toBe(0o6755n);
    expect(copied.ino).not.toBe(lstatSync(suid, { bigint: true }).ino);
    expect(lstatSync(join(tree, 'also'), { bigint: true }).ino).toBe(copied.ino);
    expect(getXattr(join(tree, 'also'), 'security.capability')).toEqual(capability);
    expect(readlinkSync(join(tree, 'sub/link'))).toBe('/etc/shadow');
    expect(lstatSync(join(tree, 'fifo')).isFIFO()).toBe(true);
    expect(lstatSync(join(tree, 'null')).rdev).toBe(lstatSync('/dev/null').rdev);
    const sub = lstatSync(join(tree, 'sub'), { bigint: true });
    expect(sub.mtimeNs).toBe(1_000_000_000_005n);
    expect(sub.mode & 0o7777n).toBe(0o2775n);
    expect(readFileSync(join(tree, 'sparse')).equals(readFileSync(sparse))).toBe(true);
    expect(lstatSync(join(tree, 'sparse')).blocks * 512).toBeLessThan(1_000_000);
    expect(compareTrees(tree, [high, low])).toEqual([]);
  });

  it('tells what changed since, and packs it as the layer that makes the same', () => {
    copy();
    writeFileSync(join(tree, 'opaque/new'), 'x');
    rmSync(join(tree, 'opaque/shown'));
    chmodSync(join(tree, 'kept'), 0o600);
    rmSync(join(tree, 'sub'), { recursive: true });
    writeFileSync(join(tree, 'sub'), 'now a file');
    rmSync(join(tree, 'replaced'));
    mkdirSync(join(tree, 'replaced/deep'), { recursive: true });
    writeFileSync(join(tree, 'one'), 'linked');
    linkSync(join(tree, 'one'), join(tree, 'two'));
    expect(compareTrees(tree, [high, low])).toEqual([
      { path: '/kept', kind: 'modified' },
      { path: '/one', kind: 'added' },
      { path: '/opaque', kind: 'modified' },
      { path: '/opaque/new', kind: 'added' },
      { path: '/opaque/shown', kind: 'deleted' },
      { path: '/replaced', kind: 'modified' },
      { path: '/replaced/deep', kind: 'added' },
      { path: '/sub', kind: 'modified' },
      { path: '/two', kind: 'added' },
    ]);
    const layer = freshDir();
    const applier = new TarApplier({ root: layer, whiteouts: 'overlay' });
    const parser = new TarParser(applier);
    const writer = new TarWriter((bytes) => parser.write(bytes));
    packChanges(tree, [high, low], writer);
    writer.finish();
    parser.end();
    applier.finish();
    expect(lstatSync(join(layer, 'one')).nlink).toBe(2);
    expect(lstatSync(join(layer, 'opaque/shown')).isCharacterDevice()).toBe(true);
    expect(readdirSync(layer).sort()).toEqual(['kept', 'one', 'opaque', 'replaced', 'sub', 'two']);
    const again = freshDir();
    copyMergedTree([layer, high, low], again);
    expect(compareTrees(again, [tree])).toEqual([]);
  });

  it('says no when the target is not empty, and stops when asked', () => {
    writeFileSync(join(tree, 'kept'), 'mine');
    expect(copy).toThrow('EEXIST');
    const stop = () => {
      throw new Error('stopped');
    };
    expect(() => copyMergedTree([low], freshDir(), stop)).toThrow('stopped');
  });
});
