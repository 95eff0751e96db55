import { createHash, randomBytes } from 'node:crypto';
import { existsSync, readFileSync, readdirSync, rmSync, truncateSync } from 'node:fs';
import { join } from 'node:path';
import { examineImageStore, gzipLayer, makeImage, plainTar, waitFor } from '@flotilla/testkit';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { takeFootprint, takeRecords, type Footprint } from './footprint.js';
import { type FragileEngine, hasLoopDevices, lossyDisks, startFragileEngine } from './power-failure.js';
import type { TestEngine } from './test-engine.js';

const content = randomBytes(3 << 20);
const digest = createHash('sha256').update(content).digest('hex');

describe.skipIf(!hasLoopDevices).each(lossyDisks)('after a power failure, $loss', ({ mountOptions }) => {
  let machine: FragileEngine;
  let t: TestEngine;
  let layered: string;
  let late: string;
  let before: Footprint;
  beforeAll(async () => {
    machine = await startFragileEngine(mountOptions);
    t = machine.t;
    layered = `${t.registry.address}/layered`;
    const more = gzipLayer(plainTar([['data', content]]));
    await t.registry.push(makeImage([...t.busybox.layers, more], { Cmd: ['sleep', '1000'] }), 'layered', 'latest');
    late = `${t.registry.address}/late`;
    const other = gzipLayer(
      plainTar([
        ['other', Buffer.from('x')],
        ['data', content],
      ]),
    );
    await t.registry.push(makeImage([...t.busybox.layers, other], { Cmd: ['sleep', '1000'] }), 'late', 'latest');
  });
  afterAll(async () => {
    await machine[Symbol.asyncDispose]();
  });

  const sleeper = ['busybox', 'sleep', '1000'];
  /** Every kind of object in every state that lasts; last of all what is written to the disk a second later. */
  const makeEverything = async (): Promise<void> => {
    await t.ok('volume', 'create', '--label', 'kept=yes', 'kept');
    await t.ok('volume', 'create', 'dropped');
    await t.ok('network', 'create', '--subnet', '10.97.0.0/24', '--label', 'kept=yes', 'blue');
    await t.ok('network', 'create', 'red');
    const port = ['--network', 'blue', '--ip', '10.97.0.9', '-p', '18080:80', '-v', 'kept:/v'];
    const serve = ['sh', '-c', 'echo alive > /tmp/index.html; echo begun; exec httpd -f -p 80 -h /tmp'];
    await t.ok('run', '-d', '--name', 'always', '--restart', 'always', ...port, 'busybox', ...serve);
    await t.ok('run', '-d', '--name', 'plain', '--label', 'x=y', ...sleeper);
    await t.ok('run', '-d', '--name', 'stopped', '--restart', 'unless-stopped', '--stop-timeout', '0', ...sleeper);
    await t.ok('stop', 'stopped');
    await t.docker(['run', '--name', 'ended', 'busybox', 'sh', '-c', 'exit 3']);
    await t.ok('run', '-d', '--name', 'paused', ...sleeper);
    await t.ok('pause', 'paused');
    await t.ok('run', '-d', '--name', 'looping', '--restart', 'always', 'busybox', 'sh', '-c', 'exit 4');
    await t.ok('run', '-d', '--name', 'fleeting', '--rm', ...sleeper);
    await t.ok('run', '-d', '--name', 'removed', ...sleeper);
    await t.ok('rm', '-f', 'removed');
    await t.ok('run', '-d', '--name', 'old-name', ...sleeper);
    await t.ok('rename', 'old-name', 'new-name');
    await t.ok('update', '--restart', 'always', 'new-name');
    await t.ok('network', 'connect', '--alias', 'another', 'blue', 'plain');
    await t.ok('network', 'rm', 'red');
    await t.ok('volume', 'rm', 'dropped');
    await t.ok('commit', 'plain', 'committed:1');
    await t.ok('tag', 'busybox', 'untagged:1');
    await t.ok('rmi', 'untagged:1');
    await t.ok('pull', '-q', layered);
    await t.ok('create', '--name', 'created', '-v', 'kept:/v', layered, 'sha256sum', '/data');
    await t.ok('volume', 'create', 'last');
    const compute = 'sha256sum /data; exec sleep 1000';
    await t.ok('run', '-d', '--name', 'eager', '--restart', 'always', late, 'sh', '-c', compute);
  };
  const removeEverything = async (): Promise<void> => {
    await t.ok('rm', '-fv', ...(await t.ok('ps', '-aq')).split('\n'));
    await t.ok('network', 'rm', 'blue');
    await t.ok('volume', 'rm', 'kept', 'last');
    await t.ok('rmi', 'committed:1', layered, late);
  };
  /** On a slow machine it has reached the disk before the power fails. */
  const loseLateLayer = (): void => {
    const layers = join(t.engine.dataRoot, 'image/layers');
    for (const layer of readdirSync(layers).map((name) => join(layers, name))) {
      if (!existsSync(join(layer, 'diff/other'))) continue;
      rmSync(join(layer, 'synced'), { force: true });
      truncateSync(join(layer, 'diff/data'));
    }
  };
  const list = async (...args: string[]): Promise<string[]> => (await t.ok(...args)).split('\n').sort();
  const stateOf = (name: string): Promise<string> =>
    t.ok('inspect', '-f', '{{.State.Status}} {{.State.ExitCode}}', name);

  it('everything that was acknowledged is there, in a true state, and nothing is half-made', async () => {
    const started = String(Math.floor(Date.now() / 1000));
    before = await takeRecords(t);
    const identity = await t.ok('info', '-f', '{{.ID}}');
    await makeEverything();
    machine.cutPower();
    const darkness = String(Date.now() / 1000);
    await machine.boot(loseLateLayer);
    expect(await t.ok('info', '-f', '{{.ID}}')).toBe(identity);
    expect(readFileSync(t.engine.logFile, 'utf8')).toContain('unpacking a lost layer again');

    await expect
      .poll(() => list('ps', '-a', '--format', '{{.Names}}'))
      .toEqual(['always', 'created', 'eager', 'ended', 'looping', 'new-name', 'paused', 'plain', 'stopped']);
    expect(await list('volume', 'ls', '-q')).toEqual(['kept', 'last']);
    expect(await t.ok('volume', 'inspect', '-f', '{{.Labels.kept}}', 'kept')).toBe('yes');
    expect(await list('network', 'ls', '--format', '{{.Name}}')).toEqual(['blue', 'bridge', 'host', 'none']);
    expect(await t.ok('network', 'inspect', '-f', '{{(index .IPAM.Config 0).Subnet}}', 'blue')).toBe('10.97.0.0/24');
    const names = [
      `${layered}:latest`,
      `${late}:latest`,
      `${t.registry.address}/busybox:latest`,
      'busybox:latest',
      'committed:1',
    ];
    expect(await list('image', 'ls', '--format', '{{.Repository}}:{{.Tag}}')).toEqual(names.sort());
    expect(await examineImageStore(t.engine)).toEqual({ exitCode: 0, findings: [] });

    // Nobody saw them end.
    for (const name of ['plain', 'paused']) expect([name, await stateOf(name)]).toEqual([name, 'exited 137']);
    expect(await stateOf('ended')).toBe('exited 3');
    expect(await stateOf('stopped')).toMatch(/^exited /);
    expect(await stateOf('created')).toBe('created 0');
    for (const name of ['always', 'eager', 'new-name']) await expect.poll(() => stateOf(name)).toBe('running 0');
    await expect
      .poll(() => t.ok('inspect', '-f', '{{.RestartCount}}', 'looping').then(Number))
      .toBeGreaterThanOrEqual(1);

    expect(await t.ok('start', '-a', 'created')).toBe(`${digest}  /data`);
    // It was not started before its lost layer was there again.
    await expect.poll(() => t.ok('logs', '--since', darkness, 'eager')).toBe(`${digest}  /data`);
    expect(await t.ok('exec', 'always', 'hostname', '-i')).toBe('10.97.0.9');
    await waitFor(() => t.namespace.run('curl', ['-sS', '--max-time', '3', 'http://127.0.0.1:18080/']) === 'alive\n', {
      what: 'the published port',
    });
    await expect.poll(async () => (await t.docker(['logs', '--tail', '1', 'always'])).stdout).toBe('begun\n');
    expect(await t.ok('logs', '--since', started, 'always')).toMatch(/(^|\n)begun$/);
    await t.ok('start', 'plain');
    expect(await t.ok('exec', 'always', 'nslookup', 'another')).toContain('Address');

    const told = async (): Promise<string[]> => {
      const window = ['--since', started, '--until', String(Date.now() / 1000)];
      return list('events', ...window, '--format', '{{.Type}} {{.Action}} {{.Actor.Attributes.name}} {{.Actor.ID}}');
    };
    await expect
      .poll(told)
      .toEqual(
        expect.arrayContaining([
          expect.stringMatching(/^container create created /),
          expect.stringMatching(/^container destroy removed /),
          expect.stringMatching(/^network destroy red /),
          expect.stringMatching(/^volume create .* last$/),
        ]),
      );
    const creations = (await told()).filter((line) => line.startsWith('container create '));
    expect(new Set(creations).size).toBe(creations.length);
  });

  it('the same succeeds again, and then once more', async () => {
    await removeEverything();
    await before.expectUnchanged();
    const footprint = await takeFootprint(t);
    await makeEverything();
    expect(await t.ok('start', '-a', 'created')).toBe(`${digest}  /data`);
    await removeEverything();
    await footprint.expectUnchanged();
    expect(await examineImageStore(t.engine)).toEqual({ exitCode: 0, findings: [] });
  });
});
