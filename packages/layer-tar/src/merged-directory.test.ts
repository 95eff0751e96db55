import { execFileSync } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { mknod, setXattr } from '@flotilla/sys';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { TarWriter, listChanges, packTree } from './index.js';

const isRoot = process.getuid?.() === 0;
const base = mkdtempSync(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'flotilla-merged-'));
afterAll(() => rmSync(base, { recursive: true, force: true }));

const [upper, middle, lowest] = ['upper', 'middle', 'lowest'].map((name) => join(base, name)) as [
  string,
  string,
  string,
];
const long = new Date('2020-01-01T00:00:00Z');

function write(layer: string, path: string, content = ''): void {
  const full = join(layer, path);
  mkdirSync(join(full, '..'), { recursive: true });
  writeFileSync(full, content);
  utimesSync(full, long, long);
}
const whiteout = (layer: string, path: string): void => {
  mkdirSync(join(layer, path, '..'), { recursive: true });
  mknod(join(layer, path), 0o020000, 0n);
};
const opaque = (layer: string, path: string): void => {
  mkdirSync(join(layer, path), { recursive: true });
  setXattr(join(layer, path), 'trusted.overlay.opaque', Buffer.from('y'));
};

describe.runIf(isRoot)('directories as an overlay shows them', () => {
  beforeAll(() => {
    for (const [path, content] of Object.entries({
      'same/kept': '1',
      'same/hidden-by-middle': '1',
      'replaced/a': '1',
      'replaced/b': '1',
      'emptied/x': '1',
      'file-to-dir': '1',
      'dir-to-file/inside': '1',
      touched: '1',
      moded: '1',
      deleted: '1',
      'deep/er/file': '1',
      'untouched-copy': '1',
    })) {
      write(lowest, path, content);
    }
    whiteout(middle, 'same/hidden-by-middle');
    opaque(middle, 'emptied');
    write(middle, 'same/from-middle', '1');

    opaque(upper, 'replaced');
    write(upper, 'replaced/a', '1');
    write(upper, 'replaced/new', '1');
    write(upper, 'file-to-dir/below', '1');
    write(upper, 'dir-to-file', '1');
    write(upper, 'touched', '2');
    utimesSync(join(upper, 'touched'), long, new Date('2021-01-01T00:00:00Z'));
    write(upper, 'moded', '1');
    chmodSync(join(upper, 'moded'), 0o600);
    whiteout(upper, 'deleted');
    whiteout(upper, 'never-was');
    write(upper, 'deep/er/file', '22');
    write(upper, 'untouched-copy', '1');
    write(upper, 'emptied/again', '1');
    write(upper, 'same/hidden-by-middle', '1');
    write(upper, 'added/one', '1');
    symlinkSync('nowhere', join(upper, 'added/link'));
  });

  it("lists the changes of the topmost by dockerd's rules", () => {
    const lines = listChanges(upper, [middle, lowest]).map(({ path, kind }) => `${kind} ${path}`);
    expect(lines).toEqual([
      'added /added',
      'added /added/link',
      'added /added/one',
      'modified /deep',
      'modified /deep/er',
      'modified /deep/er/file',
      'deleted /deleted',
      'modified /dir-to-file',
      'modified /emptied',
      'added /emptied/again',
      'modified /file-to-dir',
      'added /file-to-dir/below',
      'modified /moded',
      'modified /replaced',
      'deleted /replaced/b',
      'added /replaced/new',
      'modified /same',
      'added /same/hidden-by-middle',
      'modified /touched',
    ]);
    expect(listChanges(upper, [middle, lowest], { include: (path) => path === 'moded' })).toHaveLength(1);
  });

  it('packs the whole of what is shown', () => {
    const parts: Buffer[] = [];
    const writer = new TarWriter((bytes) => parts.push(Buffer.from(bytes)));
    packTree(upper, writer, { whiteouts: 'literal', lower: [middle, lowest] });
    writer.finish();
    const archive = Buffer.concat(parts);
    expect(execFileSync('tar', ['-tf', '-'], { input: archive, encoding: 'utf8' }).trim().split('\n')).toEqual([
      'added/',
      'added/link',
      'added/one',
      'deep/',
      'deep/er/',
      'deep/er/file',
      'dir-to-file',
      'emptied/',
      'emptied/again',
      'file-to-dir/',
      'file-to-dir/below',
      'moded',
      'replaced/',
      'replaced/a',
      'replaced/new',
      'same/',
      'same/from-middle',
      'same/hidden-by-middle',
      'same/kept',
      'touched',
      'untouched-copy',
    ]);
    const content = execFileSync('tar', ['-xOf', '-', 'deep/er/file'], { input: archive, encoding: 'utf8' });
    expect(content).toBe('22');
  });
});
