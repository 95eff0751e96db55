import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { closeSync, mkdirSync, openSync, rmSync, statfsSync, writeFileSync, writeSync } from 'node:fs';
import { dockerArchive, gzipLayer, makeImage, plainTar, waitFor, type FixtureImage } from '@flotilla/testkit';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { takeFootprint, takeRecords, type Footprint } from './footprint.js';
import { expectOneSentence } from './hostile-fixtures.js';
import { startTestEngine, type TestEngine } from './test-engine.js';

const mebibyte = 1 << 20;
const noSpace = /no space left on device/i;

describe('a full disk', () => {
  let t: TestEngine;
  let whole: Footprint;
  beforeAll(async () => {
    t = await startTestEngine({
      // A cache would give way, and what does not fit would.
      daemonJson: { 'registry-cache-size': 0 },
      prepare: (directory) => {
        mkdirSync(`${directory}/engine/data`, { recursive: true, mode: 0o711 });
        execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=128m', 'flotilla-full', `${directory}/engine/data`]);
      },
    });
    await t.ok('run', '--rm', 'busybox', 'true');
    whole = await takeFootprint(t);
  });
  afterAll(async () => {
    await t[Symbol.asyncDispose]();
  });
  beforeEach(() => {
    leave(Infinity);
  });

  const free = (): number => {
    const { bavail, bsize } = statfsSync(t.engine.dataRoot);
    return bavail * bsize;
  };
  /** Fill the data root up to so many free bytes; Infinity takes the filling away. */
  const leave = (bytes: number): void => {
    const filling = `${t.engine.dataRoot}/registry-proxy/filling`;
    if (bytes === Infinity) {
      rmSync(filling, { force: true });
      return;
    }
    const fd = openSync(filling, 'a');
    try {
      while (free() > bytes) writeSync(fd, Buffer.alloc(Math.max(4096, Math.min(mebibyte, free() - bytes))));
    } catch {
      // It is full.
    } finally {
      closeSync(fd);
    }
  };
  const imageOf = (content: Buffer): FixtureImage => makeImage([gzipLayer(plainTar([['data', content]]))]);
  const expectServing = async (): Promise<void> => {
    expect(await t.ok('run', '--rm', '-v', 'kept:/v', 'busybox', 'sh', '-c', 'echo x > /v/f && echo ok')).toBe('ok');
    await t.ok('volume', 'rm', 'kept');
  };

  it.each<[string, Buffer]>([
    ['blob', randomBytes(16 * mebibyte)],
    ['unpacked layer', Buffer.alloc(24 * mebibyte)],
  ])('a pull whose %s does not fit', async (what, content) => {
    const image = imageOf(content);
    const name = what.replace(' ', '-');
    await t.registry.push(image, name, 'latest');
    const records = await takeRecords(t);
    leave(12 * mebibyte);
    expectOneSentence(await t.docker(['pull', `${t.registry.address}/${name}`]), noSpace);
    await records.expectUnchanged();
    await expectServing();
    leave(Infinity);
    await t.ok('pull', '-q', `${t.registry.address}/${name}`);
    await t.ok('rmi', `${t.registry.address}/${name}`);
    await records.expectUnchanged();
  });

  it.each<[string, Buffer]>([
    ['archive', randomBytes(16 * mebibyte)],
    ['unpacked layer', Buffer.alloc(7 * mebibyte)],
  ])('a load whose %s does not fit', async (_what, content) => {
    writeFileSync(`${t.directory}/large.tar`, dockerArchive(imageOf(content), ['large:1']));
    const records = await takeRecords(t);
    leave(12 * mebibyte);
    expectOneSentence(await t.docker(['load', '-i', `${t.directory}/large.tar`]), noSpace);
    await records.expectUnchanged();
    await expectServing();
    leave(Infinity);
    expect(await t.ok('load', '-i', `${t.directory}/large.tar`)).toContain('Loaded image: large:1');
    await t.ok('rmi', 'large:1');
    await records.expectUnchanged();
  });

  it('an import that does not fit', async () => {
    const records = await takeRecords(t);
    leave(12 * mebibyte);
    const input = plainTar([['data', randomBytes(16 * mebibyte)]]);
    expectOneSentence(await t.docker(['import', '-', 'large:2'], { input }), noSpace);
    await records.expectUnchanged();
    await expectServing();
  });

  it('a container that writes until nothing is left hears it, and its removal makes room', async () => {
    const records = await takeRecords(t);
    const writing = ['busybox', 'dd', 'if=/dev/zero', 'of=/big', 'bs=1M', 'count=300'];
    const result = await t.docker(['run', '--name', 'writer', ...writing]);
    expect([result.code, result.stderr]).toEqual([1, expect.stringMatching(noSpace)]);
    expect(free()).toBeLessThan(8 * mebibyte);
    await t.ok('rm', 'writer');
    await waitFor(() => free() > 20 * mebibyte, { what: 'room' });
    await records.expectUnchanged();
    await expectServing();
  });

  it('a container that logs until nothing is left goes on, and logs again when there is room', async () => {
    const records = await takeRecords(t);
    leave(12 * mebibyte);
    const fill = 'yes "a long line for the log" | head -c 20000000';
    const count = 'i=0; while :; do i=$((i+1)); echo "line $i"; sleep 0.05; done';
    await t.ok('run', '-d', '--name', 'logger', 'busybox', 'sh', '-c', `${fill}; ${count}`);
    await waitFor(() => free() < mebibyte / 4, { what: 'a full disk', timeoutMs: 30_000 });
    expect(await t.ok('inspect', '-f', '{{.State.Status}}', 'logger')).toBe('running');
    expect(await t.ok('logs', '--tail', '1', 'logger')).toBe('a long line for the log');
    leave(Infinity);
    await waitFor(async () => (await t.ok('logs', '--tail', '1', 'logger')).startsWith('line '), {
      what: 'lines again',
    });
    await t.ok('kill', 'logger');
    await t.ok('rm', 'logger');
    await records.expectUnchanged();
    await expectServing();
  });

  it('a container that logs into a full disk is removed', async () => {
    const records = await takeRecords(t);
    leave(8 * mebibyte);
    await t.ok('run', '-d', '--name', 'logger', 'busybox', 'yes', 'a line that is long enough to fill the disk soon');
    await waitFor(() => free() < mebibyte / 4, { what: 'a full disk', timeoutMs: 30_000 });
    await t.ok('rm', '-f', 'logger');
    await records.expectUnchanged();
    await expectServing();
  });

  it('with not one block left, a request works or says so, and room makes all well', async () => {
    const records = await takeRecords(t);
    await t.ok('run', '-d', '--name', 'there', 'busybox', 'sleep', '1000');
    leave(0);
    for (let round = 1; round <= 3; round += 1) {
      for (const args of [
        ['create', '--name', `another${round}`, 'busybox'],
        ['volume', 'create', `another${round}`],
        ['network', 'create', `another${round}`],
        ['tag', 'busybox', `another:${round}`],
        ['run', '--rm', '--name', `run${round}`, 'busybox', 'true'],
        ['pull', `${t.registry.address}/busybox`],
        ['restart', '-t', '0', 'there'],
      ]) {
        const result = await t.docker(args);
        if (result.code !== 0) expect([args, result.stderr]).toEqual([args, expect.stringMatching(noSpace)]);
        leave(0);
      }
    }
    expect((await t.docker(['ps', '-a'])).code).toBe(0);
    leave(Infinity);
    await t.ok('stop', '-t', '0', 'there');
    for (const round of [1, 2, 3]) {
      await t.docker(['rm', '-f', `another${round}`, `run${round}`]);
      await t.docker(['volume', 'rm', `another${round}`]);
      await t.docker(['network', 'rm', `another${round}`]);
      await t.docker(['rmi', `another:${round}`]);
    }
    await t.ok('rm', '-f', 'there');
    await t.docker(['rmi', `${t.registry.address}/busybox`]);
    await t.ok('pull', '-q', `${t.registry.address}/busybox`);
    await records.expectUnchanged();
    await expectServing();
  });

  it('goes on serving, and all of this has left nothing', async () => {
    await expectServing();
    const now = (): string => String(Date.now() / 1000);
    await waitFor(async () => (await t.docker(['events', '--since', now(), '--until', now()])).code === 0, {
      what: 'NATS, which is started anew after a full disk',
      timeoutMs: 30_000,
    });
    const since = String(Math.floor(Date.now() / 1000));
    await t.ok('run', '--rm', '--name', 'told', 'busybox', 'true');
    const asked = ['--since', since, '--until', String(Number(since) + 5), '--filter', 'container=told'];
    const told = await t.ok('events', ...asked, '--format', '{{.Action}}');
    expect(told.split('\n')).toEqual(expect.arrayContaining(['create', 'start', 'die', 'destroy']));
    await whole.expectUnchanged();
  });
});
