import { waitFor } from '@flotilla/testkit';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { rawRequest } from './raw-http.js';
import { startTestEngine, type TestEngine } from './test-engine.js';

describe('health checks', () => {
  let t: TestEngine;
  beforeAll(async () => {
    t = await startTestEngine();
  });
  afterAll(async () => {
    await t[Symbol.asyncDispose]();
  });
  const run = (name: string, check: string[], command = 'while :; do sleep 0.05; done') =>
    t.ok('run', '-d', '--name', name, ...check, 'busybox', 'sh', '-c', command);
  const statusOf = (name: string) => t.ok('inspect', '-f', '{{.State.Health.Status}}', name);
  const becomes = (name: string, status: string) =>
    waitFor(async () => (await statusOf(name)) === status, { what: `${name} to be ${status}`, timeoutMs: 20_000 });
  const quick = ['--health-interval', '100ms', '--health-retries', '2'];

  it('starting, healthy, unhealthy and healthy again, with events, filters and what the probes said', async () => {
    const since = String(Date.now() / 1000);
    await run('web', [
      '--health-cmd',
      'echo looked; test -e /tmp/ok',
      ...quick,
      '--health-start-period',
      '30s',
      '--health-start-interval',
      '100ms',
    ]);
    expect(await t.ok('ps', '--format', '{{.Names}} {{.Status}}')).toMatch(/^web Up .* \(health: starting\)$/);
    await t.ok('exec', 'web', 'touch', '/tmp/ok');
    await becomes('web', 'healthy');
    expect(await t.ok('ps', '-q', '--filter', 'health=healthy')).not.toBe('');
    await t.ok('exec', 'web', 'rm', '/tmp/ok');
    await becomes('web', 'unhealthy');
    expect(await t.ok('ps', '--format', '{{.Status}}')).toMatch(/\(unhealthy\)$/);
    const results = JSON.parse(await t.ok('inspect', '-f', '{{json .State.Health.Log}}', 'web')) as object[];
    expect(results.at(-1)).toMatchObject({ ExitCode: 1, Output: 'looked\n' });
    await t.ok('exec', 'web', 'touch', '/tmp/ok');
    await becomes('web', 'healthy');
    const told = await t.ok(
      ...['events', '--since', since, '--until', String(Date.now() / 1000 + 1)],
      ...['--filter', 'event=health_status', '--format', '{{.Action}}'],
    );
    expect(told.split('\n')).toEqual([
      ...['health_status: healthy', 'health_status: unhealthy', 'health_status: healthy'],
    ]);
    await t.ok('rm', '-f', 'web');
  });

  it('a probe that takes too long is killed, one that cannot be run fails', async () => {
    await run('slow', ['--health-cmd', 'sleep 1000', ...quick, '--health-timeout', '200ms']);
    await becomes('slow', 'unhealthy');
    expect(await t.ok('inspect', '-f', '{{(index .State.Health.Log 0).Output}}', 'slow')).toBe(
      'Health check exceeded timeout (200ms)',
    );
    await waitFor(async () => !(await t.ok('top', 'slow')).includes('sleep 1000') || undefined, { what: 'its end' });
    await t.ok('rm', '-f', 'slow');
    const created = await rawRequest(t.engine.socket, 'POST', '/v1.51/containers/create?name=wrong', {
      Image: 'busybox',
      Cmd: ['sleep', '1000'],
      Healthcheck: { Test: ['CMD', 'nosuchprogram'], Interval: 100_000_000, Retries: 1 },
    });
    expect(created.status).toBe(201);
    await t.ok('start', 'wrong');
    await becomes('wrong', 'unhealthy');
    expect(await t.ok('inspect', '-f', '{{(index .State.Health.Log 0).Output}}', 'wrong')).toContain(
      'exec: "nosuchprogram": executable file not found in $PATH',
    );
    await t.ok('rm', '-f', 'wrong');
  });

  it('goes on after a pause, begins anew with a restart, and goes on after the death of the service', async () => {
    await run('web', ['--health-cmd', 'test -e /tmp/ok', ...quick]);
    await becomes('web', 'unhealthy');
    await t.ok('pause', 'web');
    const streak = () => t.ok('inspect', '-f', '{{.State.Health.FailingStreak}}', 'web');
    const before = await streak();
    await t.ok('unpause', 'web');
    await waitFor(async () => (await streak()) !== before, { what: 'more probes' });
    const service = (await t.engine.services()).find((it) => it.service === 'container');
    process.kill(service?.pid ?? 0, 'SIGKILL');
    await t.ok('exec', 'web', 'touch', '/tmp/ok');
    await becomes('web', 'healthy');
    await t.ok('exec', 'web', 'rm', '/tmp/ok');
    await t.ok('restart', '-t', '0', 'web');
    expect(['starting', 'unhealthy']).toContain(await statusOf('web'));
    await becomes('web', 'unhealthy');
    await t.ok('rm', '-f', 'web');
  });
});
