import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { takeFootprint } from './footprint.js';
import { watchPeaks } from './memory-peak.js';
import { runCommand, startTestEngine, type TestEngine } from './test-engine.js';

const mebibyte = 1 << 20;
/** OUTPUT_MIB=1024 for a whole gigabyte. */
const outputMib = Number(process.env['OUTPUT_MIB'] ?? 64);

describe('containers that ask for much', () => {
  let t: TestEngine;
  beforeAll(async () => {
    t = await startTestEngine();
    await t.ok('run', '--rm', 'busybox', 'true');
  });
  afterAll(async () => {
    await t[Symbol.asyncDispose]();
  });

  const pidOf = async (service: string): Promise<number> =>
    (await t.engine.services()).find((found) => found.service === service)?.pid ?? 0;
  const serving = async (): Promise<void> => {
    expect(await t.ok('run', '--rm', 'busybox', 'echo', 'served')).toBe('served');
  };

  describe('output without a newline', () => {
    const length = outputMib * mebibyte;
    // Every piece differs from every other: what is lost, doubled or out of order changes the digest.
    const generate = `seq -s ' ' 1 1000000000 | head -c ${length}`;
    let expected: string;
    beforeAll(async () => {
      const { stdout } = await runCommand('sh', ['-c', `${generate} | sha256sum`]);
      expected = stdout.slice(0, 64);
    });

    async function digestOf(args: readonly string[]): Promise<string> {
      const child = spawn('docker', [...args], {
        env: { ...process.env, DOCKER_HOST: `unix://${t.engine.socket}` },
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      const hash = createHash('sha256');
      child.stdout.on('data', (chunk: Buffer) => hash.update(chunk));
      await once(child, 'close');
      return hash.digest('hex');
    }

    it.each(['json-file', 'local', 'none'])(
      `${outputMib} MiB are passed on and kept by %s, in bounded memory`,
      async (driver) => {
        const footprint = await takeFootprint(t);
        const pids = await Promise.all(['container', 'api-gateway'].map(pidOf));
        const peaks = watchPeaks(pids);
        const logging = ['--log-driver', driver, ...(driver === 'none' ? [] : ['--log-opt', 'max-size=2g'])];
        const run = ['run', '--name', 'endless', ...logging, 'busybox', 'sh', '-c', generate];
        expect(await digestOf(run)).toBe(expected);
        if (driver !== 'none') expect(await digestOf(['logs', 'endless'])).toBe(expected);
        for (const bytes of peaks()) expect(bytes).toBeLessThan(96 * mebibyte);
        await t.ok('rm', 'endless');
        await footprint.expectUnchanged();
      },
      600_000,
    );
  });

  it('a process that does not listen to SIGTERM is killed when its time is over', async () => {
    const footprint = await takeFootprint(t);
    const deaf = ['sh', '-c', 'trap "" TERM INT HUP; echo ready; while :; do sleep 1; done'];
    await t.ok('run', '-d', '--name', 'deaf', 'busybox', ...deaf);
    await expect.poll(() => t.ok('logs', 'deaf')).toBe('ready');
    await t.ok('kill', '-s', 'TERM', 'deaf');
    await t.ok('stop', '-t', '1', 'deaf');
    expect(await t.ok('inspect', '-f', '{{.State.Status}} {{.State.ExitCode}}', 'deaf')).toBe('exited 137');
    await t.ok('start', 'deaf');
    await t.ok('rm', '-f', 'deaf');
    await footprint.expectUnchanged();
  });

  it('a fork bomb is held by the limit of its processes, and the engine goes on', async () => {
    const footprint = await takeFootprint(t);
    // A shell that can fork no more ends; what it has made stays.
    const bomb = 'bomb() { while :; do bomb & sleep 1000 & done; }; bomb 2>/dev/null & exec sleep 1000';
    await t.ok('run', '-d', '--name', 'bomb', '--pids-limit', '64', '--cpus', '0.5', 'busybox', 'sh', '-c', bomb);
    const pids = async (): Promise<number> =>
      Number(await t.ok('stats', '--no-stream', '--format', '{{.PIDs}}', 'bomb'));
    await expect.poll(pids).toBeGreaterThan(48);
    expect(await pids()).toBeLessThanOrEqual(64);
    await serving();
    await t.ok('rm', '-f', 'bomb');
    await footprint.expectUnchanged();
  });
});
