import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { rawRequest } from './raw-http.js';
import { startTestEngine, type TestEngine } from './test-engine.js';

interface Stats {
  name: string;
  read: string;
  preread: string;
  pids_stats: { current: number };
  memory_stats: { usage: number; limit: number };
  cpu_stats: { cpu_usage: { total_usage: number }; system_cpu_usage: number; online_cpus: number };
  precpu_stats: { cpu_usage: { total_usage: number }; system_cpu_usage?: number };
  networks?: Record<string, { rx_bytes: number }>;
}

describe('what runs in a container and what it uses', () => {
  let t: TestEngine;
  beforeAll(async () => {
    t = await startTestEngine();
    await t.ok('run', '-d', '--name', 'busy', '-m', '64m', 'busybox', 'sh', '-c', 'sleep 1000 & while :; do :; done');
    await t.ok('run', '-d', '--name', 'plain', '--network', 'host', 'busybox', 'sleep', '1000');
    await t.ok('create', '--name', 'cold', 'busybox', 'true');
  });
  afterAll(async () => {
    await t[Symbol.asyncDispose]();
  });
  const send = (path: string) => rawRequest(t.engine.socket, 'GET', `/v1.51${path}`);

  it('docker top, with ps arguments', async () => {
    const lines = (await t.ok('top', 'busy')).split('\n');
    expect(lines[0]).toMatch(/^UID\s+PID\s+PPID\s+C\s+STIME\s+TTY\s+TIME\s+CMD$/);
    expect(lines.slice(1).map((line) => line.slice(lines[0]?.indexOf('CMD')))).toEqual(
      expect.arrayContaining(['sleep 1000']),
    );
    expect(lines).toHaveLength(3);
    expect(await t.ok('top', 'busy', '-eo', 'pid,comm')).toMatch(/^PID\s+COMMAND\n\d+\s+sh\n\d+\s+sleep$/);
  });

  it.each([
    ['cold', '', 409, /container [0-9a-f]{64} is not running/],
    ['absent', '', 404, /No such container: absent/],
    ['busy', '-o args', 500, /Couldn't find PID field in ps output/],
    ['busy', '-e -o user=PID', 400, /specifying "user=PID" is not allowed/],
    ['busy', '--nonsense', 500, /^ps: /],
  ])('docker top of %s with "%s" answers %i', async (name, args, status, message) => {
    const answer = await send(`/containers/${name}/top?ps_args=${encodeURIComponent(args)}`);
    expect([answer.status, (answer.json as { message: string }).message]).toEqual([
      status,
      expect.stringMatching(message),
    ]);
  });

  it('stats: once with the second before, at once, as a stream, and of what does not run', async () => {
    const stats = (await send('/containers/busy/stats?stream=0')).json as Stats;
    expect(stats).toMatchObject({ name: '/busy', memory_stats: { limit: 64 << 20 }, pids_stats: { current: 2 } });
    expect(stats.memory_stats.usage).toBeGreaterThan(0);
    expect(stats.networks?.['eth0']?.rx_bytes).toBeGreaterThanOrEqual(0);
    expect(Date.parse(stats.read)).toBeGreaterThan(Date.parse(stats.preread));
    const used = stats.cpu_stats.cpu_usage.total_usage - stats.precpu_stats.cpu_usage.total_usage;
    expect(used).toBeGreaterThan(0);
    expect(stats.cpu_stats.system_cpu_usage).toBeGreaterThan(stats.precpu_stats.system_cpu_usage ?? Infinity);
    const once = (await send('/containers/plain/stats?stream=0&one-shot=1')).json as Stats;
    expect(once).toMatchObject({ name: '/plain', preread: '0001-01-01T00:00:00Z' });
    expect(once.networks).toBeUndefined();
    expect((await send('/containers/cold/stats?stream=0&one-shot=1')).json).toMatchObject({
      name: '/cold',
      read: '0001-01-01T00:00:00Z',
      memory_stats: {},
    });
    expect((await send('/containers/absent/stats?stream=0')).status).toBe(404);
    const shown = await t.ok('stats', '--no-stream', '--format', '{{.Name}} {{.MemUsage}} {{.PIDs}}', 'busy');
    expect(shown).toMatch(/^busy \S+iB \/ 64MiB 2$/);
  });

  it('docker update changes a running container and what is not asked for stays', async () => {
    const limits = () =>
      t.ok(
        'inspect',
        '-f',
        '{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}} {{.HostConfig.PidsLimit}} {{.HostConfig.RestartPolicy.Name}}',
        'busy',
      );
    const since = String(Date.now() / 1000);
    await t.ok(
      'update',
      '--memory',
      '96m',
      '--memory-swap',
      '192m',
      '--cpus',
      '0.5',
      '--pids-limit',
      '20',
      '--restart',
      'always',
      'busy',
    );
    expect(await limits()).toBe(`${96 << 20} 500000000 20 always`);
    const stats = (await send('/containers/busy/stats?stream=0&one-shot=1')).json as Stats & {
      pids_stats: { limit: number };
    };
    expect([stats.memory_stats.limit, stats.pids_stats.limit]).toEqual([96 << 20, 20]);
    await t.ok('update', '--restart', 'no', 'busy');
    expect(await limits()).toBe(`${96 << 20} 500000000 20 no`);
    const told = await t.ok(
      ...['events', '--since', since, '--until', String(Date.now() / 1000 + 1)],
      ...['--filter', 'event=update', '--format', '{{.Action}}'],
    );
    expect(told).toBe('update\nupdate');
    await t.ok('update', '--memory', '32m', '--memory-swap', '64m', 'cold');
    expect(await t.ok('inspect', '-f', '{{.HostConfig.Memory}}', 'cold')).toBe(String(32 << 20));
  });

  it.each([
    ['busy', ['--memory', '1m'], /Minimum memory limit allowed is 6MB/],
    ['busy', ['--memory', '500m'], /Memory limit should be smaller than already set memoryswap limit/],
    ['busy', ['--cpu-period', '10000'], /CPU Period cannot be updated as NanoCPUs has already been set/],
    ['busy', ['--restart', 'sometimes'], /unknown policy 'sometimes'/],
    ['absent', ['--memory', '64m'], /No such container: absent/],
  ])('docker update of %s refuses %j', async (name, args, message) => {
    const before = await t.ok('inspect', '-f', '{{json .HostConfig}}', 'busy');
    const result = await t.docker(['update', ...args, name]);
    expect([result.code, result.stderr]).toEqual([1, expect.stringMatching(message)]);
    expect(await t.ok('inspect', '-f', '{{json .HostConfig}}', 'busy')).toBe(before);
  });
});
