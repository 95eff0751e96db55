import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { once } from 'node:events';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { parseDaemonFlags, readDaemonSettings, serviceNames } from '@flotilla/config';
import { silentLogger } from '@flotilla/log';
import { makeTempDir, unmountBelow, waitFor } from '@flotilla/testkit';
import type { TempDir } from '@flotilla/testkit';
import { engineStatus, startEngine } from '@flotilla/cli';
import type { RunningEngine, ServiceStatus } from '@flotilla/cli';

const fakeService = fileURLToPath(new URL('./fake-service.mjs', import.meta.url));
const streamWorker = fileURLToPath(new URL('../dist/event-stream-worker.js', import.meta.url));

describe.runIf(process.getuid?.() === 0)('the launcher (needs root for its mounts)', () => {
  let temp: TempDir;
  let engine: RunningEngine | undefined;
  let execRoot: string;
  let dataRoot: string;
  let bundleDir: string;

  beforeEach(async () => {
    temp = await makeTempDir('cli');
    [execRoot, dataRoot, bundleDir] = ['run', 'data', 'bundle'].map((name) => join(temp.path, name)) as [
      string,
      string,
      string,
    ];
    mkdirSync(bundleDir);
    mkdirSync(execRoot, { mode: 0o700 });
    for (const name of serviceNames) symlinkSync(fakeService, join(bundleDir, `${name}.js`));
    symlinkSync(streamWorker, join(bundleDir, 'event-stream-worker.js'));
  });
  afterEach(async () => {
    await engine?.[Symbol.asyncDispose]();
    engine = undefined;
    await unmountBelow(temp.path);
    await temp[Symbol.asyncDispose]();
  });

  function settings() {
    const flags = parseDaemonFlags([
      '--data-root',
      dataRoot,
      '--exec-root',
      execRoot,
      '--config-file',
      '/dev/null',
      '-l',
      'fatal',
    ]);
    return readDaemonSettings(flags);
  }
  async function start(): Promise<RunningEngine> {
    engine = await startEngine({
      settings: settings(),
      version: '9.9.9',
      bundleDir,
      log: silentLogger(),
      isolateMounts: false,
    });
    await engine.ready;
    return engine;
  }
  async function status(name: string): Promise<ServiceStatus> {
    const found = (await engineStatus(execRoot))?.services.find(({ service }) => service === name);
    if (found === undefined) throw new Error(`no ${name}`);
    return found;
  }

  it('starts everything, tells its state, restarts what is killed, and stops in order', async () => {
    const running = await start();
    await waitFor(async () => (await status('nats-server')).health === 'SERVING', { what: 'the bus' });
    const services = (await engineStatus(execRoot))?.services ?? [];
    expect(services.map(({ service }) => service).sort()).toEqual([...serviceNames, 'nats-server'].sort());
    expect(services.filter(({ health }) => health !== 'SERVING').map(({ service }) => service)).toEqual([]);
    expect(await status('volume')).toMatchObject({
      version: '9.9.9',
      restarts: 0,
      address: `unix:${execRoot}/volume.sock`,
    });
    expect(statSync(join(execRoot, 'config/volume.json')).mode & 0o777).toBe(0o600);
    expect(statSync(join(execRoot, 'nats/nats-server.conf')).mode & 0o777).toBe(0o600);

    const { pid } = await status('volume');
    process.kill(pid, 'SIGKILL');
    const again = await waitFor(
      async () => {
        const now = await status('volume');
        return now.pid !== pid && now.health === 'SERVING' ? now : undefined;
      },
      { what: 'the volume service to come back' },
    );
    expect(again.restarts).toBe(1);

    const nats = await status('nats-server');
    process.kill(nats.pid, 'SIGKILL');
    const natsAgain = await waitFor(
      async () => {
        const now = await status('nats-server');
        return now.pid !== 0 && now.pid !== nats.pid && now.health === 'SERVING' ? now : undefined;
      },
      { what: 'nats-server to come back' },
    );
    expect(natsAgain.address).toBe(nats.address);

    const pids = (await engineStatus(execRoot))?.services.map((each) => each.pid) ?? [];
    await running[Symbol.asyncDispose]();
    engine = undefined;
    for (const each of pids) expect(existsSync(`/proc/${each}`)).toBe(false);
    expect(await engineStatus(execRoot)).toBeUndefined();
    expect(readFileSync('/proc/self/mountinfo', 'utf8')).not.toContain(temp.path);
  });

  it('keeps its id and the port of the bus, and refuses a second launcher', async () => {
    const first = await start();
    const id = readFileSync(join(dataRoot, 'engine-id'), 'utf8');
    const { address } = await status('nats-server');
    await expect(
      startEngine({ settings: settings(), version: '1', bundleDir, log: silentLogger(), isolateMounts: false }),
    ).rejects.toThrow(`another engine uses ${dataRoot}`);
    await first[Symbol.asyncDispose]();
    await start();
    expect(readFileSync(join(dataRoot, 'engine-id'), 'utf8')).toBe(id);
    expect((await status('nats-server')).address).toBe(address);
  });

  it.each([
    ['empty', ''],
    ['zeros', '\0'.repeat(37)],
  ])('makes an id anew where a power failure left one that is %s', async (_what, text) => {
    mkdirSync(dataRoot, { recursive: true });
    writeFileSync(join(dataRoot, 'engine-id'), text);
    await start();
    expect(readFileSync(join(dataRoot, 'engine-id'), 'utf8')).toMatch(/^[0-9a-f-]{36}\n$/);
  });

  it('kills a service that hangs', async () => {
    await start();
    const { pid } = await status('image');
    process.kill(pid, 'SIGSTOP');
    await waitFor(async () => (await status('image')).restarts === 1, {
      what: 'the hung service to be replaced',
      timeoutMs: 25_000,
    });
    expect(existsSync(`/proc/${pid}`)).toBe(false);
    await waitFor(async () => (await status('image')).health === 'SERVING', { what: 'the new one' });
  });

  it('ends what a dead launcher left, also when it hangs', async () => {
    const left = spawn('sleep', ['1000'], { stdio: 'ignore' });
    const ended = once(left, 'exit');
    const pid = left.pid ?? 0;
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    const identity = {
      pid,
      startTime: stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19],
      bootId: readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim(),
    };
    mkdirSync(dataRoot);
    const record = { launcher: { ...identity, pid: 1 }, processes: [{ service: 'image', process: identity }] };
    writeFileSync(join(dataRoot, 'launcher.json'), JSON.stringify(record));
    await start();
    expect(await ended).toEqual([null, 'SIGKILL']);
  });

  it('starts a service that fails again and again, ever slower, without harming the others', async () => {
    writeFileSync(join(execRoot, 'network.broken'), '');
    engine = await startEngine({
      settings: settings(),
      version: '1',
      bundleDir,
      log: silentLogger(),
      isolateMounts: false,
    });
    await waitFor(async () => (await status('network')).restarts >= 3, { what: 'three restarts' });
    await waitFor(async () => (await status('volume')).health === 'SERVING', { what: 'the others' });
    const { restarts } = await status('network');
    expect(restarts).toBeLessThan(8);
  });
});
