import { spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { closeSync, fsyncSync, openSync, rmSync, statfsSync, writeFileSync, writeSync } from 'node:fs';
import {
  dockerArchive,
  examineImageStore,
  gzipLayer,
  makeImage,
  plainTar,
  startFaultProxy,
  mountExt4Disk,
  type Ext4Disk,
  type FixtureImage,
} from '@flotilla/testkit';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { enterNamespace } from './enter-namespace.js';
import { takeRecords } from './footprint.js';
import { expectOneSentence } from './hostile-fixtures.js';
import { startTestEngine, type TestEngine } from './test-engine.js';

const mebibyte = 1 << 20;
const noSpace = /no space left on device/i;

// A machine that is itself a container may have none.
const hasLoopDevices = spawnSync('losetup', ['-f']).status === 0;

describe.skipIf(!hasLoopDevices).each(['overlay2', 'vfs'])('a full ext4 on a loop device, %s', (driver) => {
  let t: TestEngine;
  let inside: Disposable;
  let disk: Ext4Disk;
  beforeAll(async () => {
    t = await startTestEngine({
      daemonJson: { 'registry-cache-size': 0, 'storage-driver': driver },
      prepare: (directory) => {
        disk = mountExt4Disk(`${directory}/disk`, `${directory}/engine/data`, { mebibytes: 160, inodes: 4096 });
      },
    });
    inside = enterNamespace(t.namespace);
  });
  afterAll(async () => {
    inside[Symbol.dispose]();
    await t[Symbol.asyncDispose]();
    await disk.released();
  });
  beforeEach(() => {
    leave(Infinity);
  });

  /** Fill the data root up to so many free bytes; Infinity takes the filling away. */
  const leave = (bytes: number): void => {
    const filling = `${t.engine.dataRoot}/registry-proxy/filling`;
    if (bytes === Infinity) {
      rmSync(filling, { force: true });
      return;
    }
    const fd = openSync(filling, 'a');
    try {
      for (;;) {
        fsyncSync(fd);
        const { bavail, bsize } = statfsSync(t.engine.dataRoot);
        if (bavail * bsize <= bytes) return;
        writeSync(fd, Buffer.alloc(Math.max(4096, Math.min(mebibyte, bavail * bsize - bytes))));
      }
    } finally {
      closeSync(fd);
    }
  };
  const imageOf = (...files: [string, Buffer][]): FixtureImage => makeImage([gzipLayer(plainTar(files))]);
  /** Nothing of it is left, nothing is damaged, and the engine works on. */
  const expectSound = async (): Promise<void> => {
    expect(await examineImageStore(t.engine)).toEqual({ exitCode: 0, findings: [] });
    expect(await t.ok('run', '--rm', 'busybox', 'echo', 'works')).toBe('works');
  };

  it('in a pull that unpacks while its layer comes', async () => {
    // Much that is short on the wire comes first: the disk is full long before the layer has come.
    const image = imageOf(['zeros', Buffer.alloc(32 * mebibyte)], ['rest', randomBytes(6 * mebibyte)]);
    await t.registry.push(image, 'followed', 'latest');
    await using proxy = await startFaultProxy(t.registry.address);
    proxy.decide = ({ path }) =>
      path.endsWith(image.layers[0]?.digest ?? '') ? { kind: 'stall', afterBytes: 4 * mebibyte } : undefined;
    const records = await takeRecords(t);
    leave(16 * mebibyte);
    expectOneSentence(await t.docker(['pull', `${proxy.address}/followed`]), noSpace);
    await expectSound();
    await records.expectUnchanged();
    leave(Infinity);
    proxy.decide = () => undefined;
    await t.ok('pull', '-q', `${proxy.address}/followed`);
    expect(await t.ok('inspect', '-f', '{{.Id}}', `${proxy.address}/followed`)).toBe(image.id);
    await t.ok('rmi', `${proxy.address}/followed`);
    await records.expectUnchanged();
  });

  it.each<[string, FixtureImage]>([
    ['blob', imageOf(['data', randomBytes(20 * mebibyte)])],
    ['number of files', imageOf(...Array.from({ length: 5000 }, (_, at): [string, Buffer] => [`${at}`, Buffer.of(1)]))],
  ])('in a pull whose %s does not fit', async (what, image) => {
    const isCount = what === 'number of files';
    await t.registry.push(image, 'wide', 'latest');
    const records = await takeRecords(t);
    leave(16 * mebibyte);
    expectOneSentence(await t.docker(['pull', `${t.registry.address}/wide`]), noSpace);
    await expectSound();
    leave(Infinity);
    // Room for bytes is no room for files.
    if (isCount) expectOneSentence(await t.docker(['pull', `${t.registry.address}/wide`]), noSpace);
    else {
      await t.ok('pull', '-q', `${t.registry.address}/wide`);
      await t.ok('rmi', `${t.registry.address}/wide`);
    }
    await expectSound();
    await records.expectUnchanged();
  });

  it('in a load', async () => {
    const image = imageOf(['data', randomBytes(20 * mebibyte)]);
    writeFileSync(`${t.directory}/large.tar`, dockerArchive(image, ['large:1']));
    const records = await takeRecords(t);
    leave(16 * mebibyte);
    expectOneSentence(await t.docker(['load', '-i', `${t.directory}/large.tar`]), noSpace);
    await expectSound();
    await records.expectUnchanged();
    leave(Infinity);
    expect(await t.ok('load', '-i', `${t.directory}/large.tar`)).toContain('Loaded image: large:1');
    await t.ok('rmi', 'large:1');
    await records.expectUnchanged();
  });

  it('in a commit', async () => {
    const write = 'head -c 25000000 /dev/urandom > /f && touch /written && exec sleep 1000';
    await t.ok('run', '-d', '--name', 'changed', 'busybox', 'sh', '-c', write);
    await expect
      .poll(() => t.docker(['exec', 'changed', 'test', '-e', '/written']), { timeout: 60_000 })
      .toMatchObject({
        code: 0,
      });
    const records = await takeRecords(t);
    leave(16 * mebibyte);
    expectOneSentence(await t.docker(['commit', 'changed', 'committed:1']), noSpace);
    expect(await t.ok('inspect', '-f', '{{.State.Status}}', 'changed')).toBe('running');
    await expectSound();
    await records.expectUnchanged();
    leave(Infinity);
    await t.ok('commit', 'changed', 'committed:1');
    expect(await t.ok('run', '--rm', 'committed:1', 'wc', '-c', '/f')).toBe('25000000 /f');
    await t.ok('rm', '-f', 'changed');
    await t.ok('rmi', 'committed:1');
    await expectSound();
  });

  it.runIf(driver === 'vfs')('in the copy of an image for a container', async () => {
    const image = makeImage([...t.busybox.layers, gzipLayer(plainTar([['data', randomBytes(20 * mebibyte)]]))], {
      Cmd: ['true'],
    });
    await t.registry.push(image, 'big', 'latest');
    await t.ok('pull', '-q', `${t.registry.address}/big`);
    await t.ok('tag', `${t.registry.address}/big`, 'big');
    await t.ok('rmi', `${t.registry.address}/big`);
    const records = await takeRecords(t);
    leave(16 * mebibyte);
    expectOneSentence(await t.docker(['create', 'big']), noSpace);
    await expectSound();
    await records.expectUnchanged();
    leave(Infinity);
    expect(await t.ok('run', '--rm', 'big', 'wc', '-c', '/data')).toBe(`${20 * mebibyte} /data`);
    await t.ok('rmi', 'big');
    await expectSound();
  });
});
