import { execFileSync } from 'node:child_process';
import { readFileSync, readdirSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { takeFootprint } from './footprint.js';
import { startTestEngine, type TestEngine } from './test-engine.js';

describe('an engine with storage driver vfs', () => {
  let t: TestEngine;
  beforeAll(async () => {
    t = await startTestEngine({ daemonJson: { 'storage-driver': 'vfs' } });
  });
  afterAll(async () => {
    await t[Symbol.asyncDispose]();
  });

  it('says so', async () => {
    expect(await t.ok('info', '-f', '{{.Driver}}')).toBe('vfs');
    expect(await t.ok('image', 'inspect', 'busybox', '-f', '{{.GraphDriver.Name}}')).toBe('vfs');
  });

  it('runs, restarts, exports, tells changes, commits and removes containers, and leaves nothing', async () => {
    const footprint = await takeFootprint(t);
    await t.ok('run', '-d', '--name', 'copied', 'busybox', 'sleep', '100');
    await t.ok('exec', 'copied', 'sh', '-c', 'echo first > /written; rm /etc/group');
    expect(await t.ok('inspect', 'copied', '-f', '{{json .GraphDriver}}')).toBe('{"Data":null,"Name":"vfs"}');
    expect(await t.ok('exec', 'copied', 'sh', '-c', 'grep -c " / overlay " /proc/mounts || true')).toBe('0');
    await t.ok('restart', '-t', '0', 'copied');
    expect(await t.ok('exec', 'copied', 'cat', '/written')).toBe('first');
    expect(await t.ok('diff', 'copied')).toBe('C /etc\nD /etc/group\nA /written');
    expect(await t.ok('ps', '-as', '--format', '{{.Size}}')).toMatch(/^6B \(virtual /);
    await t.ok('cp', 'copied:/written', `${t.directory}/running`);
    await t.ok('stop', '-t', '0', 'copied');
    await t.ok('cp', 'copied:/written', `${t.directory}/stopped`);
    for (const name of ['running', 'stopped']) expect(readFileSync(`${t.directory}/${name}`, 'utf8')).toBe('first\n');
    await t.ok('export', '-o', `${t.directory}/v.tar`, 'copied');
    const names = execFileSync('tar', ['-tf', `${t.directory}/v.tar`], { encoding: 'utf8' }).split('\n');
    expect(names).toEqual(expect.arrayContaining(['written', 'etc/passwd']));
    expect(names).not.toContain('etc/group');
    await t.ok('commit', 'copied', 'made:1');
    expect(
      await t.ok('run', '--rm', 'made:1', 'sh', '-c', 'cat /written; ls /etc/group 2>/dev/null || echo gone'),
    ).toBe('first\ngone');
    expect(readdirSync(`${t.engine.dataRoot}/image/containers`).filter((name) => !name.startsWith('.'))).toHaveLength(
      1,
    );
    await t.ok('rm', 'copied');
    await t.ok('rmi', 'made:1');
    await footprint.expectUnchanged();
  });

  it('keeps what a volume, a read-only root and a user ask for', async () => {
    const run = (...args: string[]) => t.ok('run', '--rm', ...args);
    expect(await run('--read-only', 'busybox', 'sh', '-c', 'touch /x 2>/dev/null || echo read-only')).toBe('read-only');
    expect(await run('-v', '/etc', 'busybox', 'sh', '-c', 'head -c 4 /etc/passwd')).toBe('root');
    expect(await run('-u', 'web', '-w', '/var/made', 'busybox', 'sh', '-c', 'id -un; pwd')).toBe('web\n/var/made');
    // The layers themselves still lie where an overlay of them can be read.
    expect(await run('--mount', 'type=image,source=busybox,target=/x', 'busybox', 'ls', '/x/bin/busybox')).toBe(
      '/x/bin/busybox',
    );
  });
});
