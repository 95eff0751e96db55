import type { TarEntry, TarSink } from '@flotilla/layer-tar';
import { describe, expect, it } from 'vitest';
import { PlacedMembers } from './placed-members.js';

const member = (fields: Partial<TarEntry>): TarEntry => ({
  ...{ name: 'x', type: 'file', mode: 0o644, uid: 0, gid: 0, size: 0, mtime: { seconds: 0, nanoseconds: 0 } },
  ...{ linkname: '', devmajor: 0, devminor: 0, xattrs: [] },
  ...fields,
});

describe('PlacedMembers', () => {
  const placed = (directory: string, fields: Partial<TarEntry>) => {
    const seen: TarEntry[] = [];
    const inner: TarSink = { entry: (entry) => seen.push(entry), data: () => undefined, endEntry: () => undefined };
    new PlacedMembers(inner, directory).entry(member(fields));
    return seen.map(({ name, linkname }) => (linkname === '' ? name : `${name} -> ${linkname}`));
  };

  it('puts names below the directory', () => {
    expect(placed('/d', { name: 'a/../b' })).toEqual(['d/b']);
    expect(placed('/d/e', { name: '/abs' })).toEqual(['d/e/abs']);
    expect(placed('/', { name: './a//b' })).toEqual(['a/b']);
    expect(placed('/d', { name: 'h', type: 'hardlink', linkname: 'a' })).toEqual(['d/h -> d/a']);
    expect(placed('/d', { name: 's', type: 'symlink', linkname: '../../a' })).toEqual(['d/s -> ../../a']);
  });

  it('leaves the directory itself alone', () => {
    for (const name of ['.', './', '/', 'a/..']) expect(placed('/d', { name, type: 'directory' })).toEqual([]);
    expect(() => placed('/d', { name: '.' })).toThrow('"." cannot take the place of "/d"');
    expect(() => placed('/', { name: '', type: 'symlink', linkname: 'x' })).toThrow('cannot take the place');
  });

  it('refuses what leads out', () => {
    for (const name of ['..', '../a', 'a/../../d/a', '/../a']) {
      expect(() => placed('/d', { name })).toThrow(`${JSON.stringify(name)} is outside of "/d"`);
    }
    const link = { name: 'h', type: 'hardlink', linkname: '../a' } as const;
    expect(() => placed('/d', link)).toThrow('invalid hardlink "h" -> "../a"');
  });
});
