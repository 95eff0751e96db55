import {
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  readlinkSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { isEngineError } from '@flotilla/errors';
import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import { TarApplier, TarParser, TarWriter } from './index.js';
import type { TarHeader } from './index.js';

// FUZZ_EFFORT=100 looks a hundred times longer.
const effort = Number(process.env['FUZZ_EFFORT'] ?? 1);
const timeLimitMs = 4_000 * effort;
const runs = (count: number): number => count * effort;
const corpus = new URL('../test/corpus/', import.meta.url);
const base = mkdtempSync(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'flotilla-fuzz-'));
afterAll(() => rmSync(base, { recursive: true, force: true }));

const components = [
  'a',
  'b',
  'c',
  '.',
  '..',
  '',
  'n'.repeat(255),
  '.wh.a',
  '.wh.b',
  '.wh..',
  '.wh.',
  '.wh..wh..opq',
  'é',
];
const name = fc
  .tuple(
    fc.constantFrom('', '/', './', '../', `${base}/outside/`),
    fc.array(fc.constantFrom(...components), { maxLength: 4 }),
  )
  .map(([start, parts]) => start + parts.join('/'));
const member = fc
  .record({
    name,
    linkname: name,
    type: fc.constantFrom('file', 'file', 'directory', 'symlink', 'symlink', 'hardlink', 'fifo', 'char'),
    mode: fc.constantFrom(0o644, 0o755, 0o4755, 0, 0o1777),
    content: fc.constantFrom('', 'x', 'y'.repeat(700)),
    xattr: fc.constantFrom('', '', 'user.a', 'trusted.overlay.opaque', 'security.capability', 'no-namespace'),
  })
  .map(({ xattr, content, linkname, ...it }): [TarHeader, string] => [
    {
      ...it,
      ...(it.type === 'symlink' || it.type === 'hardlink' ? { linkname } : {}),
      ...(xattr === '' ? {} : { xattrs: [[xattr, 'value']] }),
      size: it.type === 'file' ? content.length : 0,
    },
    it.type === 'file' ? content : '',
  ]);

function archiveOf(members: readonly [TarHeader, string][]): Buffer {
  const parts: Buffer[] = [];
  const writer = new TarWriter((bytes) => parts.push(Buffer.from(bytes)));
  for (const [header, content] of members) {
    writer.entry(header);
    if (content !== '') writer.data(Buffer.from(content));
  }
  writer.finish();
  return Buffer.concat(parts);
}

/** Everything below a directory, without following anything. */
function treeOf(directory: string): string[] {
  return readdirSync(directory, { withFileTypes: true })
    .flatMap((entry) => {
      const path = join(directory, entry.name);
      const { mode, uid, mtimeMs, nlink } = lstatSync(path);
      const own = `${path} ${mode} ${uid} ${mtimeMs} ${nlink} ${entry.isSymbolicLink() ? readlinkSync(path) : entry.isFile() ? readFileSync(path, 'latin1') : ''}`;
      return entry.isDirectory() ? [own, ...treeOf(path)] : [own];
    })
    .sort();
}

/** Unpack into a new root beside things that must not change; whatever is wrong with the archive has a name. */
function expectContained(archive: Buffer, whiteouts: 'overlay' | 'literal' = 'overlay'): void {
  const outside = join(base, 'outside');
  const root = join(base, 'box', 'root');
  mkdirSync(join(outside, 'a'), { recursive: true });
  mkdirSync(root, { recursive: true });
  writeFileSync(join(outside, 'a', 'b'), 'secret');
  writeFileSync(join(outside, 'c'), 'secret');
  const before = [...treeOf(outside), ...readdirSync(base), ...readdirSync(join(base, 'box'))];
  const applier = new TarApplier({ root, whiteouts });
  try {
    const parser = new TarParser(applier);
    for (let at = 0; at < archive.length; at += 700) parser.write(archive.subarray(at, at + 700));
    parser.end();
    applier.finish();
  } catch (error) {
    if (!isEngineError(error)) throw error;
  } finally {
    applier.abort();
  }
  expect([...treeOf(outside), ...readdirSync(base), ...readdirSync(join(base, 'box'))]).toEqual(before);
  rmSync(base, { recursive: true });
}

describe('archives of any sort', () => {
  it('stay in their root', () => {
    const many = fc.array(member, { minLength: 1, maxLength: 8 });
    fc.assert(
      fc.property(many, fc.constantFrom('overlay' as const, 'literal' as const), (members, whiteouts) =>
        expectContained(archiveOf(members), whiteouts),
      ),
      { numRuns: runs(200), interruptAfterTimeLimit: timeLimitMs },
    );
  });

  it('stay in their root when bytes of them are changed', () => {
    const damage = fc.array(fc.tuple(fc.nat(), fc.nat(255)), { maxLength: 12 });
    fc.assert(
      fc.property(fc.array(member, { minLength: 1, maxLength: 4 }), damage, fc.nat(), (members, changes, end) => {
        const archive = archiveOf(members);
        for (const [at, value] of changes) archive[at % archive.length] = value;
        expectContained(end % 3 === 0 ? archive.subarray(0, end % archive.length) : archive);
      }),
      { numRuns: runs(150), interruptAfterTimeLimit: timeLimitMs },
    );
  });

  it.each(readdirSync(corpus).filter((file) => file.endsWith('.tar')))('stay in their root: %s', (file) => {
    expectContained(readFileSync(new URL(file, corpus)));
  });
});
