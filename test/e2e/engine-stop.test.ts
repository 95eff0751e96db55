import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { waitFor } from '@flotilla/testkit';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { killProcess } from './kill-process.js';
import { startTestEngine, type TestEngine } from './test-engine.js';

describe('an engine that stops its containers and starts them in order', () => {
  let t: TestEngine;
  beforeAll(async () => {
    t = await startTestEngine({ daemonJson: { 'live-restore': false, 'shutdown-timeout': 30 } });
  });
  afterAll(async () => {
    await t[Symbol.asyncDispose]();
  });
  const inspect = (name: string, format: string) => t.ok('inspect', '-f', format, name);
  const running = async () => (await t.ok('ps', '--format', '{{.Names}}')).split('\n').filter(Boolean).sort();
  const startedAt = async (name: string) => BigInt(Date.parse(await inspect(name, '{{.State.StartedAt}}')));
  const composed = (service: string, dependsOn: string) => [
    ...['--label', 'com.docker.compose.project=shop', '--label', `com.docker.compose.service=${service}`],
    ...['--label', `com.docker.compose.depends_on=${dependsOn}:service_started:false`],
  ];
  const untilTerm = (onTerm: string) => [
    'sh',
    '-c',
    `trap '${onTerm}' TERM; touch /ready; while :; do sleep 0.05; done`,
  ];
  const run = async (name: string, onTerm: string, ...options: string[]) => {
    await t.ok('run', '-d', '--name', name, ...options, 'busybox', ...untilTerm(onTerm));
    await waitFor(async () => (await t.docker(['exec', name, 'test', '-e', '/ready'])).code === 0, { what: name });
  };

  it('stops dependents first, and brings back what has a policy, in the order of needs', async () => {
    expect(await t.ok('info', '-f', '{{.LiveRestoreEnabled}}')).toBe('false');
    await run('db', 'test -e /data/web-is-gone && exit 3; exit 4', '--restart', 'unless-stopped', '-v', 'data:/data');
    // Made in an order that is not the one of their needs.
    await run(
      'web',
      'touch /data/web-is-gone; exit 0',
      '--restart',
      'always',
      '--volumes-from',
      'db',
      '--network',
      'container:db',
    );
    await run('plain', 'exit 7');
    await run('stopped', 'exit 0', '--restart', 'unless-stopped');
    await run('one', 'exit 0', '--restart', 'always', ...composed('one', 'two'));
    await run('two', 'exit 0', '--restart', 'always', ...composed('two', 'one'));
    await t.ok('stop', 'stopped');
    const pids = await Promise.all(['db', 'web', 'plain', 'one', 'two'].map((name) => inspect(name, '{{.State.Pid}}')));

    await t.engine.stop();
    expect(pids.filter((pid) => existsSync(`/proc/${pid}`))).toEqual([]);
    await t.engine.start();
    await waitFor(async () => (await running()).join() === 'db,one,two,web', {
      what: 'the policies',
      timeoutMs: 60_000,
    });
    expect(await inspect('plain', '{{.State.Status}} {{.State.ExitCode}}')).toBe('exited 7');
    expect(await t.ok('exec', 'db', 'ls', '/data')).toBe('web-is-gone');
    expect(await startedAt('web')).toBeGreaterThanOrEqual(await startedAt('db'));
    // Its end said that web was gone before it.
    const events = await t.ok(
      'events',
      '--since',
      '1h',
      '--until',
      '0s',
      '-f',
      'container=db',
      '-f',
      'event=die',
      '--format',
      '{{.Actor.Attributes.exitCode}}',
    );
    expect(events).toBe('3');
  });

  it('starts what a crash of the machine has ended in the order of needs', async () => {
    const names = ['db', 'web', 'one', 'two'];
    const ids = await Promise.all(names.map((name) => inspect(name, '{{.Id}}')));
    const pids = await Promise.all(names.map((name) => inspect(name, '{{.State.Pid}}')));
    const shims = ids.map((id) => readFileSync(join(t.engine.execRoot, 'containers', id, 'shim.pid'), 'utf8'));
    const services = await t.engine.services();
    const all = [t.engine.launcherPid, ...services.map(({ pid }) => pid), ...shims, ...pids];
    for (const pid of all) killProcess(Number(pid));
    await waitFor(() => pids.every((pid) => !existsSync(`/proc/${pid}`)), { what: 'their end' });
    await t.engine.start();
    // Not `Running`, which a container that waits for its restart is too.
    const counts = () => inspect('web', '{{.State.Status}} {{.RestartCount}}');
    await waitFor(async () => (await counts()) === 'running 1', { what: 'the last one', timeoutMs: 60_000 });
    expect(await startedAt('web')).toBeGreaterThanOrEqual(await startedAt('db'));
    await waitFor(async () => (await running()).join() === 'db,one,two,web', { what: 'all', timeoutMs: 60_000 });
  });
});
