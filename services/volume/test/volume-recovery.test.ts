import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdir, readdir, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { umountAll } from '@flotilla/sys';
import { type Codec, jsonCodec, Store } from '@flotilla/store';
import { makeTempDir } from '@flotilla/testkit';
import { configFor, connectVolume, containerId, deadline, holder, makeVolumeService } from './volume-fixture.js';

const acquisition = (digit: string, name: string) => ({
  ...{
    holder: holder(digit),
    name,
    driver: '',
    options: {},
    labels: {},
    destination: '/data',
    readOnly: false,
    isAnonymous: false,
  },
});

describe('recovery', () => {
  it('removes the directory of a create that was not recorded, but never files', async () => {
    await using service = await makeVolumeService();
    const { client, root } = service;
    await client.acquireVolume(acquisition('a', 'data'), deadline);
    await service.restart(async () => {
      await mkdir(join(root, 'volumes/half/_data'), { recursive: true });
      await mkdir(join(root, 'volumes/quarter'));
      await mkdir(join(root, 'volumes/found/_data'), { recursive: true });
      await writeFile(join(root, 'volumes/found/_data/file'), 'x');
    });
    expect((await readdir(join(root, 'volumes'))).sort()).toEqual(['.removed', 'data', 'found']);
    // A volume of that name takes the files over.
    await client.acquireVolume(acquisition('a', 'found'), deadline);
    expect(await readdir(service.pathOf('found'))).toEqual(['file']);
  });

  it('finishes a removal that was recorded and takes back one that was not', async () => {
    await using service = await makeVolumeService();
    const { client, root, pathOf } = service;
    await client.createVolume({ name: 'kept', driver: '', options: {}, labels: {} }, deadline);
    await writeFile(join(pathOf('kept'), 'file'), 'x');
    await service.restart(async () => {
      await mkdir(join(root, 'volumes/.removed/0011'));
      await rename(join(root, 'volumes/kept'), join(root, 'volumes/.removed/0011/kept'));
      await mkdir(join(root, 'volumes/.removed/0022/gone/_data'), { recursive: true });
      await writeFile(join(root, 'volumes/.removed/0022/gone/_data/file'), 'x');
      await mkdir(join(root, 'volumes/.removed/0033'));
    });
    expect(await readdir(pathOf('kept'))).toEqual(['file']);
    expect(await readdir(join(root, 'volumes/.removed'))).toEqual([]);
  });

  it('shows a volume whose record is damaged, keeps its files, and goes on when it is created again', async () => {
    await using service = await makeVolumeService();
    const { client, root, pathOf } = service;
    const strange = {
      alias: { name: 'good' },
      dateless: { createdAtNs: 'yesterday' },
      optionless: { options: null },
      unlabelled: { labels: null },
      nobodys: { holders: [null] },
    };
    const names = ['good', 'torn', 'odd', 'gone', ...Object.keys(strange)];
    for (const name of names) await client.acquireVolume(acquisition('a', name), deadline);
    await writeFile(join(pathOf('torn'), 'file'), 'precious');
    const raw: Codec<Uint8Array> = { encode: (bytes) => bytes, decode: (bytes) => bytes };
    const inStore = async (work: (store: Store) => Promise<void>) => {
      await using store = await Store.open(join(root, 'volume/db'), { service: 'volume', schemaVersion: 1 });
      await work(store);
    };
    await service.restart(() =>
      inStore(async (store) => {
        const volumes = store.collection('volumes', raw);
        const good = JSON.parse(Buffer.from((await volumes.get('good')) ?? []).toString()) as object;
        await store.commit((batch) => {
          batch.put(volumes, 'torn', Buffer.from('{"name":"torn","dri'));
          batch.put(volumes, 'odd', Buffer.from('null'));
          batch.put(volumes, 'gone', Buffer.from('{}'));
          for (const [name, change] of Object.entries(strange)) {
            batch.put(volumes, name, Buffer.from(JSON.stringify({ ...good, name, ...change })));
          }
        });
      }),
    );
    const { volumes } = await client.listVolumes({}, deadline);
    expect(new Map(volumes.map(({ name, status }) => [name, Object.keys(status)]))).toEqual(
      new Map(names.map((name) => [name, name === 'good' ? [] : ['damage']])),
    );
    const use = { containerId: containerId('a'), name: 'torn', destination: '/d', readOnly: false, propagation: '' };
    const refused = {
      kind: 'dataLoss',
      message: expect.stringMatching(/^volume torn cannot be used: its record/) as string,
    };
    await expect(client.mountVolume(use, deadline)).rejects.toMatchObject(refused);
    await expect(client.acquireVolume(acquisition('b', 'torn'), deadline)).rejects.toMatchObject(refused);
    // Whoever held them, their files are deleted by force only.
    const pruned = await client.pruneVolumes({ all: true, labels: [], excludedLabels: [] }, deadline);
    expect(pruned.removed).toEqual([]);
    await expect(client.removeVolume({ name: 'gone', force: false }, deadline)).rejects.toMatchObject({
      kind: 'conflict',
      message:
        'remove gone: a container may use the volume, its record is damaged: it is no record of a volume; its files are deleted only by force',
    });
    for (const name of ['gone', ...Object.keys(strange)]) await client.removeVolume({ name, force: true }, deadline);
    const made = await client.createVolume({ name: 'torn', driver: '', options: {}, labels: { a: 'b' } }, deadline);
    expect(made.volume).toMatchObject({ labels: { a: 'b' }, status: {}, heldBy: [] });
    expect(await readdir(pathOf('torn'))).toEqual(['file']);
    // The container that had it holds it again.
    expect((await client.mountVolume(use, deadline)).fresh).toBe(false);
    await expect(client.removeVolume({ name: 'torn', force: true }, deadline)).rejects.toMatchObject({
      kind: 'conflict',
    });
    // What was found stays until then.
    await service.restart(() =>
      inStore(async (store) => {
        const aside = await store.collection('damaged', jsonCodec<{ bytesBase64: string }>()).all();
        expect(aside.map(([key, { bytesBase64 }]) => [key, Buffer.from(bytesBase64, 'base64').toString()])).toEqual([
          ['volumes/odd', 'null'],
        ]);
      }),
    );
    await client.unmountVolumes({ containerId: containerId('a') }, deadline);
  });

  it('gives a container an empty directory where somebody deleted it by hand', async () => {
    await using service = await makeVolumeService();
    const { client, root, pathOf } = service;
    await client.acquireVolume(acquisition('a', 'data'), deadline);
    await rm(join(root, 'volumes/data'), { recursive: true });
    const mount = { containerId: containerId('a'), name: 'data', destination: '/d', readOnly: false, propagation: '' };
    expect(await client.mountVolume(mount, deadline)).toMatchObject({ path: pathOf('data'), fresh: true });
    await client.unmountVolumes({ containerId: containerId('a') }, deadline);
    await client.releaseVolumes({ containerId: containerId('a'), removeAnonymous: false }, deadline);
    await rm(join(root, 'volumes/data'), { recursive: true });
    await client.removeVolume({ name: 'data', force: false }, deadline);
  });
});

const mainPath = fileURLToPath(new URL('../dist/main.js', import.meta.url));

describe('kill -9', () => {
  it('loses no acknowledged change and leaves nothing half-made', async () => {
    await using root = await makeTempDir('volume');
    const config = configFor(root.path);
    await mkdir(config.execRoot, { recursive: true });
    const configPath = join(root.path, 'volume.json');
    await writeFile(configPath, JSON.stringify(config));
    const address = config.listen.kind === 'unix' ? `unix:${config.listen.path}` : '';
    const client = connectVolume(address);
    let child: ChildProcess | undefined;
    const start = () => {
      child = spawn(process.execPath, [mainPath, '--config', configPath], { stdio: ['ignore', 'ignore', 'inherit'] });
    };
    const kill = async () => {
      if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
      const gone = once(child, 'exit');
      child.kill('SIGKILL');
      await gone;
    };
    const existing = new Set<string>();
    try {
      for (let round = 0; round < 5; round += 1) {
        start();
        await client.listVolumes({}, { deadlineMs: 20_000 });
        // Six workers make, hold, release and remove; every call is retried by the client and must succeed once.
        const isOver = { now: false };
        const worker = async (number: number) => {
          for (let at = 0; !isOver.now; at += 1) {
            const name = `r${round}-w${number}-${at}`;
            await client.acquireVolume(acquisition('a', name), { deadlineMs: 20_000 });
            existing.add(name);
            if (at % 2 === 0) continue;
            const anonymous = await client.createVolume(
              { name: '', driver: '', options: {}, labels: {} },
              { deadlineMs: 20_000 },
            );
            await client.removeVolume({ name: anonymous.volume?.name ?? '', force: false }, { deadlineMs: 20_000 });
          }
        };
        const workers = Array.from({ length: 6 }, (_, number) => worker(number));
        await new Promise((resolve) => setTimeout(resolve, 100 + Math.random() * 150));
        await kill();
        start();
        await new Promise((resolve) => setTimeout(resolve, 300));
        isOver.now = true;
        await Promise.all(workers);
        const { volumes } = await client.listVolumes({}, deadline);
        expect(volumes.map(({ name }) => name).sort()).toEqual([...existing].sort());
        for (const one of volumes) {
          expect(one.heldBy).toEqual([holder('a')]);
          expect(existsSync(one.mountpoint)).toBe(true);
        }
        const directories = (await readdir(join(root.path, 'volumes'))).filter((name) => name !== '.removed');
        expect(directories.sort()).toEqual([...existing].sort());
        expect(await readdir(join(root.path, 'volumes/.removed'))).toEqual([]);
        await kill();
      }
      expect(existing.size).toBeGreaterThan(50);
    } finally {
      await kill();
      client.close();
      umountAll(join(root.path, 'volumes'));
    }
  });
});
