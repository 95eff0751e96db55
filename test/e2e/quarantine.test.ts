import { renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { waitFor } from '@flotilla/testkit';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { killProcess } from './kill-process.js';
import { runCommand, startTestEngine, type TestEngine } from './test-engine.js';

const program = join(import.meta.dirname, '../../dist/bundle/flotilla.js');

describe('a container whose layer is gone', () => {
  let t: TestEngine;
  beforeAll(async () => {
    t = await startTestEngine();
  });
  afterAll(async () => {
    await t[Symbol.asyncDispose]();
  });
  const status = () => runCommand('node', [program, 'status', '--exec-root', t.engine.execRoot]);
  const restartService = async (): Promise<void> => {
    const find = async () => (await t.engine.services()).find(({ service }) => service === 'container');
    const before = (await find())?.pid ?? 0;
    killProcess(before);
    await waitFor(
      async () => {
        const now = await find();
        return now !== undefined && now.pid !== before && now.health === 'SERVING';
      },
      { what: 'the container service to be back', timeoutMs: 60_000 },
    );
  };

  it('is shown as dead with the reason, comes back with its layer, and can be removed', async () => {
    await t.ok('run', '--name', 'whole', 'busybox', 'sh', '-c', 'echo kept > /kept');
    const upper = await t.ok('inspect', '-f', '{{.GraphDriver.Data.UpperDir}}', 'whole');
    renameSync(upper, `${upper}.away`);
    await restartService();
    expect(await t.ok('ps', '-a', '--format', '{{.Names}} {{.State}} {{.Status}}')).toBe('whole dead Dead');
    expect(await t.ok('ps', '-aq', '--filter', 'status=dead')).not.toBe('');
    const state = JSON.parse(await t.ok('inspect', '-f', '{{json .State}}', 'whole')) as Record<string, unknown>;
    expect(state).toMatchObject({
      Status: 'dead',
      Dead: true,
      Error: expect.stringContaining(`its writable layer is gone: ${upper}`) as unknown,
    });
    expect((await status()).stderr).toContain('WARNING: container: container whole');
    expect((await t.docker(['info'])).stderr).toContain('is in quarantine: its writable layer is gone');
    expect((await t.docker(['start', 'whole'])).stderr).toContain('is marked for removal and cannot be started');
    // Only somebody who names it removes it.
    await t.ok('container', 'prune', '-f');
    expect(await t.ok('ps', '-aq')).not.toBe('');
    renameSync(`${upper}.away`, upper);
    await t.ok('start', '-a', 'whole');
    expect((await status()).stderr).toBe('');
    rmSync(upper, { recursive: true });
    await restartService();
    expect(await t.ok('ps', '-a', '--format', '{{.State}}')).toBe('dead');
    await t.ok('rm', '-f', 'whole');
    expect(await t.ok('ps', '-aq')).toBe('');
  });
});
