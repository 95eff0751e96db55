import { spawn } from 'node:child_process';
import type { ChildProcess, StdioOptions } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parseDaemonFlags, readDaemonSettings, serviceFiles } from '@flotilla/config';

const program = fileURLToPath(new URL('./sleeper.mjs', import.meta.url));

interface Started {
  child: ChildProcess;
  ended: Promise<[number | null, string | null]>;
  output: () => string;
}

describe('runService', () => {
  let dir: string;
  beforeAll(async () => {
    dir = await mkdtemp(join(tmpdir(), 'flotilla-run-'));
  });
  afterAll(() => rm(dir, { recursive: true, force: true }));

  async function start(version: string, ...more: string[]): Promise<Started> {
    const settings = readDaemonSettings(parseDaemonFlags(['--config-file', '/dev/null']));
    const config = serviceFiles(settings, { version, engineId: 'id', nats: null }).volume;
    const file = join(dir, `${version}.json`);
    await writeFile(file, JSON.stringify(config));
    return run(['--config', file, ...more]);
  }
  function run(args: string[]): Started {
    const stdio: StdioOptions = ['ignore', 'pipe', 'pipe', 'pipe'];
    const child = spawn(process.execPath, [program, ...args], { stdio });
    let text = '';
    for (const stream of [child.stdout, child.stderr]) stream?.on('data', (data: Buffer) => (text += data.toString()));
    return { child, ended: once(child, 'close') as Started['ended'], output: () => text };
  }
  async function started({ child, output }: Started): Promise<void> {
    while (!output().includes('service started') && child.exitCode === null) await once(child.stderr ?? child, 'data');
  }

  it.each(['SIGTERM', 'SIGINT'] as const)('%s disposes the service and ends with 0', async (signal) => {
    const service = await start('1');
    await started(service);
    service.child.kill(signal);
    expect(await service.ended).toEqual([0, null]);
    expect(service.output()).toContain('disposed');
    expect(service.output()).toContain(`got ${signal}`);
  });

  it('the end of the launcher does the same', async () => {
    const service = await start('1', '--parent-fd', '3');
    await started(service);
    service.child.stdio[3]?.destroy();
    expect(await service.ended).toEqual([0, null]);
    expect(service.output()).toContain('the launcher is gone');
    expect(service.output()).toContain('disposed');
  });

  it.each([
    ['fails', 'start failed'],
    ['crashes', 'unhandled rejection'],
  ])('a service that %s ends with 1 and says why', async (version, text) => {
    const service = await start(version);
    expect(await service.ended).toEqual([1, null]);
    expect(service.output()).toContain(text);
  });

  it.each([
    [[], '--config FILE is missing'],
    [['--config', '/no/such/file'], 'cannot read the configuration'],
    [['--config', '/dev/null', '--parent-fd', 'x'], 'invalid --parent-fd x'],
    [['--what'], "Unknown option '--what'"],
  ])('arguments %j are refused', async (args, text) => {
    const service = run(args);
    expect(await service.ended).toEqual([1, null]);
    expect(service.output()).toContain(text);
  });
});
