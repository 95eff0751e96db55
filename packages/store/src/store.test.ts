import { spawn, spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdtemp, readFile, readdir, rm, stat, statfs, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { jsonCodec } from './codec.js';
import { MemoryDisk } from './memory-backend.js';
import { Store } from './store.js';
import type { OpenStoreOptions } from './store.js';
import { readStoreOwner } from './store-owner.js';
import { describeStore } from './store-suite.js';

const options: OpenStoreOptions = { service: 'volume', schemaVersion: 1 };
const memoryRoot = existsSync('/dev/shm') ? '/dev/shm' : tmpdir();
const made: string[] = [];

async function makeDir(): Promise<string> {
  const dir = await mkdtemp(join(memoryRoot, 'flotilla-store-'));
  made.push(dir);
  return dir;
}

afterEach(async () => {
  for (const dir of made.splice(0)) await rm(dir, { recursive: true, force: true });
});

describeStore('LevelDB', async () => {
  const dir = join(await makeDir(), 'deeper', 'db');
  return { open: (storeOptions) => Store.open(dir, storeOptions) };
});

describeStore('memory', () => {
  const disk = new MemoryDisk();
  return Promise.resolve({ open: (storeOptions) => Store.openMemory(disk, storeOptions) });
});

const writerPath = fileURLToPath(new URL('../dist/crash-writer.js', import.meta.url));

/** Starts the crash writer and collects the numbers it acknowledged; `end` resolves when it is gone. */
function startWriter(dir: string, first: number) {
  const child = spawn(process.execPath, [writerPath, dir, String(first)], { stdio: ['ignore', 'pipe', 'inherit'] });
  let text = '';
  const begun = new Promise<void>((resolve) => {
    child.stdout.setEncoding('utf8').on('data', (chunk: string) => {
      text += chunk;
      resolve();
    });
  });
  const end = new Promise<void>((resolve) => child.once('close', () => resolve()));
  // A last line cut short by the kill is no acknowledgement.
  const acknowledged = () =>
    text
      .slice(0, text.lastIndexOf('\n') + 1)
      .split('\n')
      .filter(Boolean)
      .map(Number);
  return { child, begun, end, acknowledged };
}

describe('a LevelDB directory', () => {
  it('loses no acknowledged batch and tears none when its process is killed', async () => {
    const dir = await makeDir();
    const acknowledged = new Set<number>();
    let first = 0;
    for (let round = 0; round < 8; round += 1) {
      const writer = startWriter(dir, first);
      await writer.begun;
      await new Promise((resolve) => setTimeout(resolve, Math.random() * 60));
      writer.child.kill('SIGKILL');
      await writer.end;
      for (const number of writer.acknowledged()) acknowledged.add(number);

      await using store = await Store.open(dir, options);
      const left = new Map(await store.collection('left', jsonCodec<number>()).all());
      const right = new Map(await store.collection('right', jsonCodec<number>()).all());
      const events = await store.outbox.read(0n, 1_000_000);
      for (const number of acknowledged) expect(left.get(String(number))).toBe(number);
      expect([...right.keys()]).toEqual([...left.keys()]);
      expect(new Set(events.map(({ event }) => event.actorId))).toEqual(new Set(left.keys()));
      expect(new Set(events.map(({ event }) => event.id)).size).toBe(left.size);
      for (const key of left.keys()) expect(await store.replies.get(`request-${key}`)).toBeDefined();
      expect(store.revision).toBeGreaterThanOrEqual(BigInt(left.size));
      expect(store.outbox.lastSequence).toBe(BigInt(left.size));
      first = Math.max(-1, ...[...left.keys()].map(Number)) + 1;
    }
    expect(acknowledged.size).toBeGreaterThan(50);
  });

  it('refuses in one sentence while another process has it open, and opens once that is gone', async () => {
    const dir = await makeDir();
    const writer = startWriter(dir, 0);
    await writer.begun;
    expect((await readStoreOwner(dir))?.pid).toBe(writer.child.pid);
    const refused = Store.open(dir, { ...options, lockTimeoutMs: 50 });
    await expect(refused).rejects.toMatchObject({ kind: 'unavailable' });
    await expect(refused).rejects.toThrow(
      `the volume store ${dir} is in use by process ${writer.child.pid ?? 0}: stop it, or use another data root`,
    );
    const opening = Store.open(dir, options);
    writer.child.kill('SIGKILL');
    await using store = await opening;
    expect(store.revision).toBeGreaterThan(0n);
    expect((await readStoreOwner(dir))?.pid).toBe(process.pid);
    await store.close();
    expect(await readStoreOwner(dir)).toBeUndefined();
  });

  it('is readable by its user only', async () => {
    const dir = join(await makeDir(), 'db');
    await using _store = await Store.open(dir, options);
    const { stdout } = spawnSync('stat', ['-c', '%a', dir], { encoding: 'utf8' });
    expect(stdout.trim()).toBe('700');
  });

  it('says so when its files are damaged', async () => {
    const dir = await makeDir();
    {
      await using store = await Store.open(dir, options);
      await store.commit(() => undefined);
    }
    await writeFile(join(dir, 'CURRENT'), 'MANIFEST-999999\n');
    await expect(Store.open(dir, options)).rejects.toThrow(
      /^(the volume store .* is damaged|cannot open the volume store)/,
    );
    expect(await readFile(join(dir, 'CURRENT'), 'utf8')).toBe('MANIFEST-999999\n');
  });

  it.skipIf(process.getuid?.() !== 0)('goes on after a full disk (needs root: mounts a small tmpfs)', async () => {
    const dir = await makeDir();
    expect(spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=64m', 'flotilla-test', dir]).status).toBe(0);
    try {
      const kept = new Map<string, string>();
      let failures = 0;
      {
        await using store = await Store.open(join(dir, 'db'), options);
        const collection = store.collection('things', jsonCodec<string>());
        const put = async (key: string, value: string) => {
          await store.commit((batch) => batch.put(collection, key, value));
          kept.set(key, value);
        };
        await put('before', 'x');
        const reserve = join(dir, 'db', 'RESERVE');
        const reserveBytes = async () => (await stat(reserve).catch(() => ({ size: 0 }))).size;
        await vi.waitFor(async () => expect(await reserveBytes()).toBe(8 << 20));
        const { bavail, bsize } = await statfs(dir);
        await writeFile(join(dir, 'filler'), Buffer.alloc(bavail * bsize - 100_000));
        // What the reserve is for: a few records more although nothing is left.
        for (let at = 0; at < 20; at += 1) await put(`reserved${at}`, 'y'.repeat(20_000));
        expect(await reserveBytes()).toBe(4 << 20);
        for (let at = 0; at < 900; at += 1) {
          await put(`k${at}`, randomBytes(15_000).toString('base64')).catch((error: unknown) => {
            failures += 1;
            expect(error).toMatchObject({
              kind: 'internal',
              message: 'cannot write the volume store: no space left on device',
            });
          });
        }
        expect(failures).toBeGreaterThan(0);
        expect(await collection.get('before')).toBe('x');
        await rm(join(dir, 'filler'));
        await put('after', 'z');
        expect(new Map(await collection.all())).toEqual(kept);
      }
      await using store = await Store.open(join(dir, 'db'), options);
      expect(new Map(await store.collection('things', jsonCodec<string>()).all())).toEqual(kept);
    } finally {
      spawnSync('umount', ['-l', dir]);
    }
  });

  it('leaves no file open behind it', async () => {
    const dir = await makeDir();
    const store = await Store.open(dir, options);
    await store.close();
    const open = await Promise.all(
      (await readdir('/proc/self/fd')).map((fd) => readFile(`/proc/self/fdinfo/${fd}`, 'utf8').catch(() => '')),
    );
    expect(open.length).toBeGreaterThan(0);
    const links = spawnSync('ls', ['-l', `/proc/${process.pid}/fd`], { encoding: 'utf8' }).stdout;
    expect(links).not.toContain(dir);
  });
});
