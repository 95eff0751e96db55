import { execFileSync, spawnSync } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import {
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { isEngineError } from '@flotilla/errors';
import { mknod, mountOverlay, umount } from '@flotilla/sys';
import { afterAll, afterEach, describe, expect, it } from 'vitest';
import { LayerStore, chainIdOf } from './index.js';
import type { PlainLayer, PlainLayerInput, WholeBlob } from './index.js';

const isRoot = process.getuid?.() === 0;
const base = mkdtempSync(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'flotilla-layers-'));
afterAll(() => rmSync(base, { recursive: true, force: true }));
let count = 0;
const freshPath = () => join(base, `p${++count}`);
const stores: LayerStore[] = [];
afterEach(async () => {
  for (const store of stores.splice(0)) await store[Symbol.asyncDispose]();
});
async function openStore(root = freshPath()): Promise<LayerStore & { root: string }> {
  mkdirSync(root, { recursive: true });
  const store = await LayerStore.open(root);
  stores.push(store);
  return Object.assign(store, { root });
}
const digestOf = (bytes: Buffer) => `sha256:${createHash('sha256').update(bytes).digest('hex')}`;

interface Blob {
  blobPath: string;
  compression: WholeBlob['compression'];
  diffId: string;
  tar: Buffer;
}
function tarOf(files: Record<string, string | Buffer>): Buffer {
  const dir = freshPath();
  for (const [name, content] of Object.entries(files)) {
    mkdirSync(join(dir, name, '..'), { recursive: true });
    writeFileSync(join(dir, name), content);
  }
  return execFileSync('tar', ['--format=posix', '-C', dir, '-cf', '-', '.'], { maxBuffer: 1 << 30 });
}
function blobOf(tar: Buffer, compression: WholeBlob['compression'] = 'gzip'): Blob {
  const blobPath = freshPath();
  const options = { input: tar, maxBuffer: 1 << 30 };
  const blob =
    compression === 'gzip'
      ? execFileSync('gzip', ['-1', '-c'], options)
      : compression === 'zstd'
        ? execFileSync('zstd', ['-qc'], options)
        : tar;
  writeFileSync(blobPath, blob);
  return { blobPath, compression, diffId: digestOf(tar), tar };
}
/** What is in the store: nothing hidden may stay after an error. */
const entries = (store: { root: string }) => readdirSync(join(store.root, 'layers'));

async function failure(action: Promise<unknown>): Promise<string> {
  try {
    await action;
  } catch (error) {
    if (isEngineError(error)) return `${error.kind}: ${error.message}`;
    throw error;
  }
  return 'none';
}

describe('chain ids', () => {
  it('are those of the image specification', () => {
    const a = `sha256:${'a'.repeat(64)}`;
    const b = `sha256:${'b'.repeat(64)}`;
    expect(chainIdOf(undefined, a)).toBe(a);
    expect(chainIdOf(a, b)).toBe(digestOf(Buffer.from(`${a} ${b}`)));
  });
});

describe.runIf(isRoot)('LayerStore', () => {
  it.each(['gzip', 'zstd', 'none'] as const)('unpacks %s layers at once and stacks them', async (compression) => {
    const store = await openStore();
    const big = randomBytes(3_000_000);
    const blobs = [
      blobOf(tarOf({ 'etc/name': 'one', big }), compression),
      blobOf(tarOf({ 'etc/name': 'two', 'etc/.wh.gone': '' }), compression),
    ];
    const seen: number[] = [];
    let parentChainId: string | undefined;
    const applied = await Promise.all(
      blobs.map((blob) => {
        const input = {
          ...blob,
          onProgress: (bytes: number) => seen.push(bytes),
          ...(parentChainId === undefined ? {} : { parentChainId }),
        };
        parentChainId = chainIdOf(parentChainId, blob.diffId);
        return store.applyLayer(input);
      }),
    );
    expect(applied.map(({ sizeBytes }) => sizeBytes)).toEqual([3_000_003n, 3n]);
    expect(seen).toContain(readFileSync(blobs[0]?.blobPath ?? '').length);
    const chainIds = applied.map(({ chainId }) => chainId);
    const layer = await store.writable.create('c1', chainIds);
    expect(await store.writable.create('c1', chainIds)).toEqual(layer);
    const target = freshPath();
    mkdirSync(target);
    mountOverlay({ ...layer, target });
    expect(readFileSync(join(target, 'etc/name'), 'utf8')).toBe('two');
    expect(readFileSync(join(target, 'big')).equals(big)).toBe(true);
    expect(readdirSync(join(target, 'etc'))).toEqual(['name']);
    writeFileSync(join(target, 'new'), 'x'.repeat(500));
    mkdirSync(join(target, 'd'));
    execFileSync('ln', [join(target, 'new'), join(target, 'd/same')]);
    umount(target);
    expect(await store.writable.size('c1')).toBe(500n);
    await store.writable.remove('c1');
    await store.writable.remove('c1');
    expect(existsSync(layer.upper)).toBe(false);
  });

  it('gives a container without layers an empty one', async () => {
    const store = await openStore();
    const { lower } = await store.writable.create('c', []);
    expect(lower).toHaveLength(1);
    expect(readdirSync(lower[0] ?? '')).toEqual([]);
    await expect(store.writable.create('d', [`sha256:${'0'.repeat(64)}`])).rejects.toThrow(/layer does not exist/);
  });

  it('unpacks the same layer once for many callers, and outlives one of them', async () => {
    const store = await openStore();
    const blob = blobOf(tarOf({ f: randomBytes(2_000_000) }));
    const stop = new AbortController();
    const first = store.applyLayer({ ...blob, signal: stop.signal });
    const others = Array.from({ length: 5 }, () => store.applyLayer(blob));
    stop.abort();
    expect(await failure(first)).toMatch(/^cancelled/);
    const done = await Promise.all(others);
    expect(new Set(done.map(({ chainId }) => chainId)).size).toBe(1);
    expect(entries(store)).toHaveLength(1);
  });

  it('leaves nothing after a cancel, and can start again', async () => {
    const store = await openStore();
    const blob = blobOf(tarOf({ f: randomBytes(20_000_000) }), 'none');
    const stop = new AbortController();
    const attempt = store.applyLayer({ ...blob, signal: stop.signal });
    setTimeout(() => stop.abort(), 30);
    const again = failure(attempt).then(() => store.applyLayer(blob));
    expect((await again).sizeBytes).toBe(20_000_000n);
    expect(entries(store)).toHaveLength(1);
  });

  it('refuses broken blobs with one sentence and leaves nothing', async () => {
    const store = await openStore();
    const tar = tarOf({ a: randomBytes(300_000), b: randomBytes(300_000) });
    const broken = (compression: WholeBlob['compression'], change: (bytes: Buffer) => Buffer, content = tar) => {
      const blob = blobOf(content, compression);
      writeFileSync(blob.blobPath, change(readFileSync(blob.blobPath)));
      return blob;
    };
    const corrupt = (bytes: Buffer) => {
      bytes.fill(0x55, 200_000, 200_100);
      return bytes;
    };
    const cut = (bytes: Buffer) => bytes.subarray(0, 250_000);
    const cases: [string, Blob, RegExp][] = [
      ['gzip cut', broken('gzip', cut), /^dataLoss: failed to register layer: invalid or truncated compressed data/],
      [
        'gzip corrupt',
        broken('gzip', corrupt),
        /^dataLoss: failed to register layer: invalid or truncated compressed data|verification failed/,
      ],
      [
        'gzip crc',
        broken('gzip', (b) => Buffer.concat([b.subarray(0, -8), Buffer.alloc(8)])),
        /^dataLoss: .*invalid or truncated/,
      ],
      ['zstd cut', broken('zstd', cut), /^dataLoss: failed to register layer: invalid or truncated compressed data/],
      ['empty gzip', broken('gzip', () => Buffer.alloc(0)), /^dataLoss: .*invalid or truncated compressed data/],
      ['not compressed', broken('gzip', () => tar), /^dataLoss: .*invalid or truncated compressed data/],
      ['tar cut', broken('none', cut), /^dataLoss: failed to register layer: archive\/tar: unexpected EOF/],
      [
        'no tar',
        broken('gzip', (b) => b, Buffer.from('rubbish'.repeat(200_000))),
        /^invalidArgument: failed to register layer: archive\/tar: invalid tar header/,
      ],
      [
        'wrong DiffID',
        { ...blobOf(tar), diffId: `sha256:${'1'.repeat(64)}` },
        /^dataLoss: .*verification failed for digest sha256:1111/,
      ],
      ['cut between members', broken('none', () => tar.subarray(0, 300_000 + 2048)), /dataLoss/],
      ['no blob', { ...blobOf(tar), blobPath: freshPath() }, /^internal: failed to register layer: ENOENT/],
    ];
    for (const [name, blob, expected] of cases) {
      expect([name, await failure(store.applyLayer(blob))]).toEqual([name, expect.stringMatching(expected)]);
      expect([name, entries(store)]).toEqual([name, []]);
    }
    await store.applyLayer(blobOf(tar));
  });

  it('contains hostile layers', async () => {
    const store = await openStore();
    const dir = freshPath();
    mkdirSync(dir);
    const outside = freshPath();
    mkdirSync(outside);
    writeFileSync(join(outside, 'victim'), 'untouched');
    symlinkSync(outside, join(dir, 'link'));
    writeFileSync(join(dir, 'evil'), 'evil');
    const tar = execFileSync('tar', [
      '-P',
      '-C',
      dir,
      '--transform',
      's,^evil$,link/victim,',
      '-cf',
      '-',
      'link',
      'evil',
    ]);
    const { chainId } = await store.applyLayer(blobOf(tar));
    expect(readFileSync(join(outside, 'victim'), 'utf8')).toBe('untouched');
    const [lower] = store.lowerDirs([chainId]);
    expect(readFileSync(join(lower ?? '', outside, 'victim'), 'utf8')).toBe('evil');
  });

  it('reports a full disk and leaves nothing', async () => {
    const root = freshPath();
    mkdirSync(root);
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=4m', 'tmpfs', root]);
    try {
      const store = await openStore(root);
      const blob = blobOf(tarOf({ big: randomBytes(8_000_000) }));
      expect(await failure(store.applyLayer(blob))).toBe(
        'internal: failed to register layer: write /big: no space left on device',
      );
      expect(entries(store)).toEqual([]);
      await stores.pop()?.[Symbol.asyncDispose]();
    } finally {
      umount(root);
    }
  });

  it('knows its layers after a restart, and only complete ones', async () => {
    const root = freshPath();
    const first = await openStore(root);
    const blobs = [blobOf(tarOf({ a: '1' })), blobOf(tarOf({ b: '22' })), blobOf(tarOf({ c: '333' }))];
    const ids = await Promise.all(blobs.map(async (blob) => (await first.applyLayer(blob)).chainId));
    await first.sync();
    await stores.pop()?.[Symbol.asyncDispose]();
    const [a = '', b = '', c = ''] = ids.map((id) => join(root, 'layers', id.slice('sha256:'.length)));
    truncateSync(join(a, 'layer.json'), 5); // torn by a power failure
    rmSync(join(b, 'synced')); // not known to be on disk, and the machine has been started since
    writeFileSync(
      join(b, 'layer.json'),
      readFileSync(join(b, 'layer.json'), 'utf8').replace(/"bootId":"[^"]*"/, '"bootId":"other"'),
    );
    mkdirSync(join(root, 'layers', '.tmp-left'));
    mkdirSync(join(root, 'containers', '.trash-left'));
    const second = await openStore(root);
    expect(ids.map((id) => second.has(id))).toEqual([false, false, true]);
    expect(second.sizeOf(ids[2] ?? '')).toBe(3n);
    await stores.pop()?.[Symbol.asyncDispose]();
    expect(entries(second)).toEqual([c.slice(c.lastIndexOf('/') + 1)]);
    expect(readdirSync(join(root, 'containers'))).toEqual([]);
  });

  it('sweeps what is not listed', async () => {
    const store = await openStore();
    const kept = await store.applyLayer(blobOf(tarOf({ a: '1' })));
    const dropped = await store.applyLayer(blobOf(tarOf({ b: '1' })));
    await store.writable.create('keep', [kept.chainId]);
    await store.writable.create('drop', [dropped.chainId]);
    await store.sweep(new Set([kept.chainId]), new Set(['keep']));
    expect(store.chainIds()).toEqual([kept.chainId]);
    await stores.pop()?.[Symbol.asyncDispose]();
    expect(readdirSync(join(store.root, 'containers'))).toEqual(['keep']);
    expect(entries(store)).toHaveLength(1);
  });

  it('takes a plain layer from a file or a stream: unpacked, compressed, both sides digested', async () => {
    const store = await openStore();
    const tar = tarOf({ f: Buffer.alloc(2_000_000, 'text '), r: randomBytes(500_000) });
    const file = freshPath();
    writeFileSync(file, tar);
    async function* pieces() {
      for (let at = 0; at < tar.length; at += 65536) {
        yield tar.subarray(at, at + 65536);
        await new Promise((resolve) => setImmediate(resolve));
      }
    }
    for (const source of [file, pieces()]) {
      const targetPath = freshPath();
      const claimed: string[] = [];
      const layer = await store.ingestLayer({ source, targetPath, claim: (chainId) => claimed.push(chainId) });
      expect(claimed).toEqual([digestOf(tar)]);
      expect(readFileSync(join(store.lowerDirs(claimed)[0] ?? '', 'r')).length).toBe(500_000);
      expect(layer.sizeBytes).toBe(2_500_000n);
      expect(layer).toMatchObject({ diffId: digestOf(tar), uncompressedBytes: tar.length });
      const blob = readFileSync(targetPath);
      expect(layer).toMatchObject({ digest: digestOf(blob), compressedBytes: blob.length });
      expect(spawnSync('gzip', ['-dc'], { input: blob, maxBuffer: 1 << 28 }).stdout.equals(tar)).toBe(true);
    }
    async function* failing() {
      yield await Promise.resolve(Buffer.alloc(100_000));
      throw new Error('the client went away');
    }
    const before = entries(store);
    const ingest = (source: PlainLayer, more: Partial<PlainLayerInput> = {}) =>
      store.ingestLayer({ source, targetPath: freshPath(), claim: () => undefined, ...more });
    await expect(ingest(failing())).rejects.toThrow('the client went away');
    expect(await failure(ingest(file, { diffId: digestOf(Buffer.of(1)) }))).toMatch(
      /^dataLoss: failed to register layer: filesystem layer verification failed for digest/,
    );
    const noTar = freshPath();
    writeFileSync(noTar, randomBytes(3_000_000));
    expect(await failure(ingest(noTar))).toMatch(/^\w+: failed to register layer: /);
    const stop = new AbortController();
    async function* endless() {
      for (;;) {
        yield Buffer.alloc(65536);
        await new Promise((resolve) => setImmediate(resolve));
      }
    }
    const stopped = failure(ingest(endless(), { signal: stop.signal }));
    setTimeout(() => stop.abort(), 50);
    expect(await stopped).toMatch(/^cancelled/);
    expect(lstatSync(file).isFile()).toBe(true);
    expect(entries(store)).toEqual(before);
    // The same layer from two sides at once: one place.
    const other = tarOf({ both: 'x' });
    const otherFile = freshPath();
    writeFileSync(otherFile, other);
    await Promise.all([ingest(otherFile), ingest(otherFile), store.applyLayer(blobOf(other))]);
    expect(entries(store)).toHaveLength(before.length + 1);
  });

  it('reads what a container has: as a layer, as a list, as a whole', async () => {
    const store = await openStore();
    const { chainId } = await store.applyLayer(blobOf(tarOf({ 'etc/passwd': 'root', gone: 'x', 'd/a': '1' })));
    const { upper } = await store.writable.create('c', [chainId]);
    const tree = store.writable.tree('c', [chainId]);
    const signal = new AbortController().signal;
    const layer = () =>
      store.ingestLayer({ source: tree, targetPath: freshPath(), parentChainId: chainId, claim: () => undefined });
    // Mount points as the engine makes them are no change: this is the tar without members.
    mkdirSync(join(upper, 'etc'));
    mkdirSync(join(upper, 'proc'));
    for (const name of ['hosts', 'hostname', 'resolv.conf']) writeFileSync(join(upper, 'etc', name), '');
    writeFileSync(join(upper, '.dockerenv'), '');
    expect(await store.writable.changes(tree, signal)).toEqual([]);
    expect((await layer()).diffId).toBe('sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef');
    mknod(join(upper, 'gone'), 0o020000, 0n);
    writeFileSync(join(upper, 'etc/passwd'), 'changed');
    expect(await store.writable.changes(tree, signal)).toEqual([
      { path: '/etc', kind: 'modified' },
      { path: '/etc/passwd', kind: 'modified' },
      { path: '/gone', kind: 'deleted' },
    ]);
    const committed = await layer();
    const [top = ''] = store.lowerDirs([committed.chainId]);
    expect(readdirSync(top).sort()).toEqual(['etc', 'gone']);
    expect(readdirSync(join(top, 'etc'))).toEqual(['passwd']);
    expect((await layer()).digest).toBe(committed.digest);
    const chunks: Buffer[] = [];
    for await (const chunk of store.writable.pack(tree, signal)) chunks.push(chunk);
    const names = execFileSync('tar', ['-tf', '-'], { input: Buffer.concat(chunks), encoding: 'utf8' }).split('\n');
    expect(names).toEqual(expect.arrayContaining(['d/a', 'etc/hosts', 'etc/passwd', 'proc/']));
    expect(names).not.toContain('gone');
    // Left early, and not begun at all: the thread is free again.
    writeFileSync(join(upper, 'large'), randomBytes(8_000_000));
    for await (const _chunk of store.writable.pack(tree, signal)) break;
    expect(await failure(store.writable.pack(tree, AbortSignal.abort()).next())).toMatch(/^cancelled/);
  });
});
