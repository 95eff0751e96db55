import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startTestEngine, type TestEngine } from './test-engine.js';

describe('oom scores', () => {
  let t: TestEngine;
  beforeAll(async () => {
    // Upwards, which every root may: below 0 needs CAP_SYS_RESOURCE.
    t = await startTestEngine({ daemonJson: { 'oom-score-adjust': 300 } });
  });
  afterAll(async () => {
    await t[Symbol.asyncDispose]();
  });
  const scoreOf = (pid: number | string) => Number(readFileSync(`/proc/${pid}/oom_score_adj`, 'utf8'));

  it('are one for the engine, one more for shims, and their own for containers', async () => {
    const id = await t.ok('run', '-d', '--name', 'cc', 'busybox', 'sleep', '600');
    await t.ok('run', '-d', '--name', 'liked', '--oom-score-adj', '50', 'busybox', 'sleep', '600');
    const services = await t.engine.services();
    expect([...new Set([t.engine.launcherPid, ...services.map(({ pid }) => pid)].map(scoreOf))]).toEqual([300]);
    const shim = readFileSync(join(t.engine.execRoot, 'containers', id, 'shim.pid'), 'utf8');
    expect(scoreOf(shim)).toBe(301);
    expect(scoreOf(await t.ok('inspect', '-f', '{{.State.Pid}}', 'cc'))).toBe(0);
    expect(await t.ok('exec', 'cc', 'cat', '/proc/self/oom_score_adj')).toBe('0');
    expect(await t.ok('exec', 'liked', 'cat', '/proc/1/oom_score_adj')).toBe('50');
  });
});
