import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { receiveStreams, waitFor, type LogReceiver } from '@flotilla/testkit';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startTestEngine, type TestEngine } from './test-engine.js';

/** What one kill may cost: a read that was not appended yet. */
const READ_BYTES = 64 * 1024;

describe('logs', () => {
  let t: TestEngine;
  let receiver: LogReceiver;
  let socket: string;
  beforeAll(async () => {
    t = await startTestEngine({
      daemonJson: {
        'log-driver': 'local',
        'log-opts': { 'max-size': '100k', 'max-file': '400', tag: '{{.Name}}', 'cache-max-size': '1m' },
      },
    });
    // The engine has a network of its own; a socket in the file system is seen from everywhere.
    socket = `${t.directory}/receiver.sock`;
    receiver = await receiveStreams({ listen: { path: socket } });
  });
  afterAll(async () => {
    await receiver[Symbol.asyncDispose]();
    await t[Symbol.asyncDispose]();
  });

  const logsOf = async (...args: string[]): Promise<string> => (await t.docker(['logs', ...args])).stdout;
  /** A follower, with what it has printed so far and, at its end, everything. */
  const follow = (...args: string[]): { text: () => string; ended: Promise<string> } => {
    const env = { ...process.env, DOCKER_HOST: `unix://${t.engine.socket}` };
    const child = spawn('docker', ['logs', '-f', ...args], { env, stdio: ['ignore', 'pipe', 'ignore'] });
    const pieces: Buffer[] = [];
    child.stdout.on('data', (piece: Buffer) => pieces.push(piece));
    const text = (): string => Buffer.concat(pieces).toString();
    return { text, ended: once(child, 'close').then(text) };
  };
  const numbers = (from: number, to: number): string =>
    Array.from({ length: to - from + 1 }, (_, index) => `${from + index}\n`).join('');
  const containerPid = async (): Promise<number> => {
    const found = (await t.engine.services()).find(({ service }) => service === 'container');
    if (found === undefined) throw new Error('no container service');
    return found.pid;
  };
  const wait = async (name: string): Promise<void> => {
    expect(await t.ok('wait', name)).toBe('0');
  };

  it('the daemon has a driver and options for containers that name none', async () => {
    await t.ok('create', '--name', 'plain', 'busybox', 'true');
    await t.ok('create', '--name', 'own', '--log-driver', 'json-file', '--log-opt', 'max-size=1m', 'busybox', 'true');
    const config = async (name: string): Promise<unknown> =>
      JSON.parse(await t.ok('inspect', '-f', '{{json .HostConfig.LogConfig}}', name));
    expect(await config('plain')).toEqual({
      Type: 'local',
      Config: { 'max-size': '100k', 'max-file': '400', tag: '{{.Name}}', 'cache-max-size': '1m' },
    });
    expect(await config('own')).toEqual({ Type: 'json-file', Config: { 'max-size': '1m', 'cache-max-size': '1m' } });
    expect(await t.ok('inspect', '-f', '{{.LogPath}}', 'plain')).toBe('');
    const id = await t.ok('inspect', '-f', '{{.Id}}', 'own');
    expect(await t.ok('inspect', '-f', '{{.LogPath}}', 'own')).toContain(`/${id}/${id}-json.log`);
    expect(await t.ok('info', '-f', '{{.LoggingDriver}} {{json .Plugins.Log}}')).toBe(
      'local ["fluentd","gelf","journald","json-file","local","syslog"]',
    );
    await t.ok('rm', 'plain', 'own');
  });

  it('refuses what no driver takes', async () => {
    const refused = await t.docker(['create', '--log-opt', 'nope=1', 'busybox', 'true']);
    expect(refused.stderr).toContain("unknown log opt 'nope' for log driver local");
    const unknown = await t.docker(['create', '--log-driver', 'splunk', 'busybox', 'true']);
    expect(unknown.stderr).toContain("logger: no log driver named 'splunk' is registered");
    expect(await t.ok('ps', '-aq')).toBe('');
  });

  it('follows across rotations, from the end and from a time', async () => {
    const volume = `${t.directory}/go`;
    const script = 'seq 1 5000; until [ -e /go/on ]; do sleep 0.02; done; seq 5001 60000';
    await t.ok('run', '-d', '--name', 'rotating', '-v', `${volume}:/go`, 'busybox', 'sh', '-c', script);
    await waitFor(async () => (await logsOf('--tail', '1', 'rotating')) === '5000\n', { what: 'the first lines' });
    const since = (await logsOf('-t', '--tail', '1000', 'rotating')).split(' ')[0] ?? '';
    const following = [[], ['--tail', '100'], ['--since', since]].map((options) => follow(...options, 'rotating'));
    // What a tail is counts from where the log ends when it is asked for.
    for (const { text } of following) await waitFor(() => text().endsWith('5000\n'), { what: 'the followers' });
    await t.ok('run', '--rm', '-v', `${volume}:/go`, 'busybox', 'touch', '/go/on');
    await wait('rotating');
    const [all, tail, late] = await Promise.all(following.map(({ ended }) => ended));
    expect(all === numbers(1, 60_000)).toBe(true);
    expect(tail === numbers(4901, 60_000)).toBe(true);
    expect(late === numbers(4001, 60_000)).toBe(true);
    const id = await t.ok('inspect', '-f', '{{.Id}}', 'rotating');
    const files = readdirSync(`${t.engine.dataRoot}/container/containers/${id}/local-logs`);
    expect(files.filter((name) => /^container\.log\.\d+(\.gz)?$/.test(name)).length).toBeGreaterThan(20);
    // Everything is still there, compressed or not.
    expect((await logsOf('rotating')) === numbers(1, 60_000)).toBe(true);
    expect(await logsOf('--details', '--tail', '1', 'rotating')).toBe('tag=rotating 60000\n');
    await t.ok('rm', 'rotating');
  });

  it('bounds what a line without an end costs', async () => {
    const pid = await containerPid();
    const script = 'head -c 300000000 /dev/zero | tr "\\0" x';
    await t.ok('run', '--name', 'endless', '-d', '--log-opt', 'max-file=3', 'busybox', 'sh', '-c', script);
    await wait('endless');
    const status = readFileSync(`/proc/${pid}/status`, 'utf8');
    const peakKiB = Number(/VmHWM:\s*(\d+)/.exec(status)?.[1]);
    expect(peakKiB).toBeLessThan(400 * 1024);
    const kept = (await logsOf('endless')).length;
    expect(kept).toBeGreaterThan(200_000);
    expect(kept).toBeLessThan(400_000);
    expect(await containerPid()).toBe(pid);
    await t.ok('rm', 'endless');
  });

  it('loses at most a read to each kill of the service, and sends on everything that is in the log', async () => {
    const volume = `${t.directory}/stop`;
    // Each line can be told from pieces of two.
    const count = 'BEGIN { for (n = i; n < i + 300; n++) print n, n * 7919 % 1000003 }';
    const waiting = 'echo end; until [ -e /stop/all ]; do sleep 0.05; done';
    const script = `i=0; until [ -e /stop/now ]; do awk -v i=$i '${count}'; i=$((i+300)); sleep 0.05; done; ${waiting}`;
    const options = ['--log-driver', 'fluentd', '--log-opt', `fluentd-address=unix://${socket}`];
    const bounds = ['--log-opt', 'cache-max-size=1m', '--log-opt', 'cache-max-file=200'];
    await t.ok(
      'run',
      '-d',
      '--name',
      'sent',
      ...options,
      ...bounds,
      '-v',
      `${volume}:/stop`,
      'busybox',
      'sh',
      '-c',
      script,
    );
    let seen = 0;
    for (let kill = 0; kill < 4; kill++) {
      await waitFor(() => receiver.size() > seen + 200_000, { what: 'more lines', timeoutMs: 60_000 });
      const pid = await containerPid();
      process.kill(pid, 'SIGKILL');
      await waitFor(async () => ![0, pid].includes(await containerPid()), { what: 'the service', timeoutMs: 60_000 });
      seen = receiver.size();
    }
    const touch = (name: string) => t.ok('run', '--rm', '-v', `${volume}:/stop`, 'busybox', 'touch', `/stop/${name}`);
    await touch('now');
    // Looked for in what came last, which may be two pieces.
    const newest = (): string => Buffer.concat(receiver.pieces.slice(-2)).toString();
    await waitFor(() => /log[^0-9a-z]end/s.test(newest()), { what: 'the last line', timeoutMs: 60_000 });
    await touch('all');
    await wait('sent');
    const lines = (await logsOf('sent')).split('\n').filter((line) => line === numbered(Number(line.split(' ')[0])));
    const kept = new Set(lines);
    expect(kept.size).toBe(lines.length);
    const last = Number(lines.at(-1)?.split(' ')[0]);
    let lostBytes = 0;
    for (let n = 0; n < last; n++) if (!kept.has(numbered(n))) lostBytes += numbered(n).length + 1;
    expect(lostBytes).toBeLessThanOrEqual(4 * READ_BYTES);
    const arrived = new Set([...receiver.text().matchAll(/log[^0-9a-z](\d+ \d+)/gs)].map(([, number]) => number));
    const missing = lines.filter((line) => !arrived.has(line));
    expect(missing).toEqual([]);
    await t.ok('rm', 'sent');
  });

  it('a receiver that is gone blocks neither a container nor its removal', async () => {
    const address = `unix://${t.directory}/nobody.sock`;
    const options = ['--log-driver', 'fluentd', '--log-opt', `fluentd-address=${address}`];
    await t.ok('run', '--rm', ...options, 'busybox', 'sh', '-c', 'seq 1 100000');
    expect(await t.ok('ps', '-aq')).toBe('');
    expect(existsSync(`${t.directory}/nobody.sock`)).toBe(false);
    await waitFor(() => readFileSync(t.engine.logFile, 'utf8').includes('log receiver cannot be reached'), {
      what: 'the reason in the log',
    });
  });
});

function numbered(n: number): string {
  return `${n} ${(n * 7919) % 1_000_003}`;
}
