import { spawn, type ChildProcess } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { gzipLayer, makeImage, plainTar, startFaultProxy, waitFor } from '@flotilla/testkit';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { enterNamespace } from './enter-namespace.js';
import { startTestEngine, type TestEngine } from './test-engine.js';

const SERVICES = ['container', 'image', 'network', 'volume', 'registry-proxy', 'nats-server'] as const;

/** A CLI command that stays open, with its output so far. */
function follow(
  t: TestEngine,
  args: readonly string[],
): { child: ChildProcess; text(): string; ended: Promise<number | null> } {
  const chunks: Buffer[] = [];
  const child = spawn('docker', [...args], {
    env: { ...process.env, DOCKER_HOST: `unix://${t.engine.socket}` },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  child.stdout.on('data', (chunk: Buffer) => chunks.push(chunk));
  child.stderr.resume();
  const ended = new Promise<number | null>((resolve) => child.on('close', resolve));
  return { child, text: () => Buffer.concat(chunks).toString(), ended };
}

describe.each([
  { setting: 'all in one mount namespace', args: [] },
  { setting: 'each service in a mount namespace of its own', args: ['--isolate-mounts'] },
])('kill -9 of any process of the engine while containers run, $setting', ({ args }) => {
  let t: TestEngine;
  const pids = new Map<string, string>();
  beforeAll(async () => {
    t = await startTestEngine({ args });
    await t.ok(
      'run',
      '-d',
      '--name',
      'ticker',
      'busybox',
      'sh',
      '-c',
      'trap "exit 5" USR1; i=0; while :; do echo $i; i=$((i+1)); sleep 0.02; done',
    );
    await t.ok(
      'run',
      '-d',
      '--name',
      'web',
      '-h',
      'alive',
      '-p',
      '18080:80',
      '-v',
      'kept:/kept',
      'busybox',
      'sh',
      '-c',
      'hostname > /tmp/index.html; exec httpd -f -p 80 -h /tmp',
    );
    for (const name of ['ticker', 'web']) pids.set(name, await t.ok('inspect', '-f', '{{.State.Pid}}', name));
    await waitFor(() => traffic() === 'alive', { what: 'the published port' });
  });
  afterAll(async () => {
    await t[Symbol.asyncDispose]();
  });

  const traffic = (): string => {
    try {
      return t.namespace.run('curl', ['-sS', '--max-time', '3', 'http://127.0.0.1:18080/']).trim();
    } catch {
      return '';
    }
  };
  const pidOf = async (service: string): Promise<number> => {
    const found = (await t.engine.services()).find((s) => s.service === service);
    if (found === undefined) throw new Error(`no service ${service}`);
    return found.pid;
  };
  const kill = async (service: string): Promise<void> => {
    const pid = await pidOf(service);
    process.kill(pid, 'SIGKILL');
    await waitFor(() => !existsSync(`/proc/${pid}`), { what: `the end of ${service}` });
  };
  const healthy = async (service: string, not: number): Promise<boolean> => {
    const found = (await t.engine.services()).find((s) => s.service === service);
    return found !== undefined && found.pid !== not && found.pid > 0 && found.health === 'SERVING';
  };
  const expectUnharmed = async (): Promise<void> => {
    for (const [name, pid] of pids) {
      expect(existsSync(`/proc/${pid}`)).toBe(true);
      expect(await t.ok('inspect', '-f', '{{.State.Status}} {{.State.Pid}}', name)).toBe(`running ${pid}`);
    }
    expect(traffic()).toBe('alive');
  };
  /** Lines of the ticker are 0, 1, 2, ... without a gap or a repetition. @returns how many. */
  const expectContiguous = (text: string): number => {
    const lines = text.split('\n').slice(0, -1).map(Number);
    const first = lines[0] ?? 0;
    expect(lines.findIndex((line, i) => line !== first + i)).toBe(-1);
    return lines.length;
  };

  it.each(SERVICES)('%s: requests succeed once, containers and streams go on', async (service) => {
    const before = await pidOf(service);
    const logs = follow(t, ['logs', '-f', 'ticker']);
    await waitFor(() => logs.text().length > 20, { what: 'the first lines' });
    await t.ok('create', '--name', 'ending', 'busybox', 'sh', '-c', 'sleep 0.3; exit 9');
    await t.ok('start', 'ending');
    const waiting = follow(t, ['wait', 'ending']);
    await kill(service);
    const during = await t.docker(['run', '--rm', '-v', 'kept:/kept', 'busybox', 'echo', 'survived']);
    expect(during).toMatchObject({ code: 0, stdout: 'survived\n' });
    expect(traffic()).toBe('alive');
    await waitFor(() => healthy(service, before), { what: `${service} to come back`, timeoutMs: 30_000 });
    await expectUnharmed();
    expect(await waiting.ended).toBe(0);
    expect(waiting.text()).toBe('9\n');
    expect(await t.ok('inspect', '-f', '{{.State.ExitCode}}', 'ending')).toBe('9');
    await t.ok('rm', 'ending');
    const seen = expectContiguous(logs.text());
    await waitFor(() => expectContiguous(logs.text()) > seen + 10, { what: 'further lines' });
    logs.child.kill('SIGKILL');
    await logs.ended;
  });

  it.each(['image', 'registry-proxy'])('%s: a pull in the middle of a layer goes on', async (service) => {
    using _inside = enterNamespace(t.namespace);
    await using proxy = await startFaultProxy(t.registry.address);
    let blobs = 0;
    proxy.decide = ({ path }) =>
      path.includes('/blobs/') && blobs++ < 2 ? { kind: 'slow', bytesPerSecond: 400_000 } : undefined;
    const data = randomBytes(800_000);
    await t.registry.push(makeImage([gzipLayer(plainTar([{ name: 'random', data }]))]), service, 'latest');
    const before = await pidOf(service);
    const pulling = t.docker(['pull', '-q', `${proxy.address}/${service}`]);
    await waitFor(() => blobs > 1, { what: 'the layer to be asked for' });
    await delay(300);
    await kill(service);
    expect(await pulling).toMatchObject({ code: 0, stderr: '' });
    await waitFor(() => healthy(service, before), { what: `${service} to come back`, timeoutMs: 30_000 });
    await t.ok('create', '--name', 'pulled', `${proxy.address}/${service}`, 'x');
    await t.ok('rm', 'pulled');
    await expectUnharmed();
  });

  it('gateway: comes back and has forgotten nothing', async () => {
    const before = await pidOf('api-gateway');
    await kill('api-gateway');
    await waitFor(() => healthy('api-gateway', before), { what: 'the gateway', timeoutMs: 30_000 });
    await expectUnharmed();
    expect((await t.docker(['run', '--rm', 'busybox', 'echo', 'again'])).stdout).toBe('again\n');
  });

  it('launcher: services end, containers stay, the next start takes over', async () => {
    const launcher = t.engine.launcherPid;
    const services = (await t.engine.services()).map((s) => s.pid);
    process.kill(launcher, 'SIGKILL');
    await waitFor(() => services.every((pid) => !existsSync(`/proc/${pid}`)), {
      what: 'the services to notice',
      timeoutMs: 10_000,
    });
    expect(traffic()).toBe('alive');
    await t.engine.start();
    await expectUnharmed();
  });

  it('everything at once', async () => {
    await t.ok('run', '-d', '--name', 'ending', 'busybox', 'sh', '-c', 'sleep 0.5; exit 11');
    const all = [t.engine.launcherPid, ...(await t.engine.services()).map((s) => s.pid)];
    for (const pid of all) process.kill(pid, 'SIGKILL');
    await waitFor(() => all.every((pid) => !existsSync(`/proc/${pid}`)), { what: 'the end of everything' });
    expect(traffic()).toBe('alive');
    await t.engine.start();
    await expectUnharmed();
    expect(await t.ok('wait', 'ending')).toBe('11');
    await t.ok('rm', 'ending');
  });

  it('loses no log line and no event, and doubles none', async () => {
    const since = String(Math.floor(Date.now() / 1000));
    const open = follow(t, ['events', '--format', '{{.Action}} {{.Actor.Attributes.name}}', '-f', 'type=container']);
    for (const [i, service] of SERVICES.entries()) {
      const before = await pidOf(service);
      const running = t.ok('run', '--rm', '--name', `run-${i}`, 'busybox', 'true');
      await kill(service);
      await running;
      await waitFor(() => healthy(service, before), { what: service, timeoutMs: 30_000 });
    }
    await waitFor(
      async () => (await t.ok('ps', '-a', '--format', '{{.Names}}')).split('\n').sort().join() === 'ticker,web',
      { what: 'the removals' },
    );
    const replay = (
      await t.ok(
        'events',
        '--since',
        since,
        '--until',
        String(Math.ceil(Date.now() / 1000) + 1),
        '-f',
        'type=container',
        '--format',
        '{{.Action}} {{.Actor.Attributes.name}}',
      )
    ).split('\n');
    for (const i of SERVICES.keys()) {
      for (const action of ['create', 'start', 'die', 'destroy']) {
        expect([action, i, replay.filter((line) => line === `${action} run-${i}`).length]).toEqual([action, i, 1]);
      }
    }
    await waitFor(() => open.text().includes(`destroy run-${SERVICES.length - 1}`), { what: 'the open event stream' });
    for (const i of SERVICES.keys()) {
      for (const action of ['create', 'start', 'die', 'destroy']) {
        expect([
          action,
          i,
          open
            .text()
            .split('\n')
            .filter((line) => line === `${action} run-${i}`).length,
        ]).toEqual([action, i, 1]);
      }
    }
    open.child.kill('SIGKILL');
    await open.ended;
    await t.ok('kill', '-s', 'USR1', 'ticker');
    expect(await t.ok('wait', 'ticker')).toBe('5');
    expect(expectContiguous((await t.docker(['logs', 'ticker'])).stdout)).toBeGreaterThan(100);
  });
});
