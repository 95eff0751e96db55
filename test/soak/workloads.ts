import { waitFor } from '@flotilla/testkit';
import { expect } from 'vitest';
import type { TestEngine } from '../e2e/test-engine.js';

/** A life of a container: made, used, and gone without a trace at the end. `name` is its own. */
type Workload = (t: TestEngine, name: string) => Promise<void>;

const lines = Array.from({ length: 200 }, (_, at) => String(at + 1)).join('\n');

/** One after the other in turn. */
export const workloads: readonly Workload[] = [
  async (t, name) => {
    expect(await t.docker(['run', '--rm', '--name', name, 'busybox', 'sh', '-c', 'exit 7'])).toMatchObject({ code: 7 });
  },
  async (t, name) => {
    const run = await t.docker(['run', '--name', name, 'busybox', 'seq', '200']);
    expect([run.code, run.stderr, run.stdout]).toEqual([0, '', `${lines}\n`]);
    expect((await t.docker(['logs', name])).stdout.trimEnd(), await t.ok('inspect', name)).toBe(lines);
    await t.ok('rm', name);
  },
  async (t, name) => {
    await t.ok('network', 'create', name);
    await t.ok('run', '-d', '--name', name, '--network', name, '-p', '0:80', 'busybox', 'httpd', '-f', '-p', '80');
    const { stdout } = await t.docker(['port', name, '80']);
    const port = /:(\d+)/.exec(stdout)?.[1] ?? '';
    expect(t.namespace.run('curl', ['-sS', '--retry', '9', '--retry-all-errors', `http://127.0.0.1:${port}/`])).toMatch(
      /Not Found/,
    );
    await t.ok('rm', '-f', name);
    await t.ok('network', 'rm', name);
  },
  async (t, name) => {
    const command = ['sh', '-c', 'echo x > /named/f && echo y > /anonymous/f && cat /named/f'];
    expect(await t.ok('run', '--name', name, '-v', `${name}:/named`, '-v', '/anonymous', 'busybox', ...command)).toBe(
      'x',
    );
    await t.ok('rm', '-v', name);
    await t.ok('volume', 'rm', name);
  },
  async (t, name) => {
    await t.ok('run', '-d', '--name', name, 'busybox', 'sleep', '1000');
    expect(await t.ok('exec', name, 'echo', 'inside')).toBe('inside');
    expect(await t.docker(['exec', name, 'sh', '-c', 'exit 9'])).toMatchObject({ code: 9 });
    expect(await t.ok('top', name)).toContain('sleep 1000');
    expect(await t.ok('stats', '--no-stream', '--format', '{{.Name}}', name)).toBe(name);
    await t.ok('rm', '-f', name);
  },
  async (t, name) => {
    const check = ['--health-cmd', 'true', '--health-interval', '200ms'];
    await t.ok('run', '-d', '--name', name, ...check, 'busybox', 'sleep', '1000');
    await waitFor(async () => (await t.ok('inspect', '-f', '{{.State.Health.Status}}', name)) === 'healthy', {
      what: 'a healthy container',
    });
    await t.ok('rm', '-f', name);
  },
  async (t, name) => {
    const { stdout } = await t.docker(['run', '-i', '--rm', '--name', name, 'busybox', 'cat'], { input: lines });
    expect(stdout).toBe(lines);
  },
  async (t, name) => {
    await t.ok('run', '-d', '--name', name, '--restart', 'on-failure:1', 'busybox', 'sh', '-c', 'exit 1');
    expect(await t.ok('wait', name)).toBe('1');
    await t.ok('start', name);
    await t.ok('kill', name).catch(() => undefined); // it may have ended by itself
    await t.ok('rm', '-f', name);
  },
  async (t, name) => {
    await t.ok('run', '-d', '--name', name, 'busybox', 'sleep', '1000');
    await t.ok('pause', name);
    await t.ok('unpause', name);
    await t.ok('cp', `${name}:/bin/busybox`, `${t.directory}/copied`);
    await t.ok('commit', name, `${name}:1`);
    await t.ok('rename', name, `${name}-renamed`);
    await t.ok('stop', '-t', '0', `${name}-renamed`);
    await t.ok('rm', `${name}-renamed`);
    await t.ok('rmi', `${name}:1`);
  },
];
