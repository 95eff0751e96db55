import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { rawRequest } from './raw-http.js';
import { startTestEngine, type TestEngine } from './test-engine.js';

const criuWorks = (() => {
  try {
    execFileSync('criu', ['check'], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
})();

// Over HTTP: the CLI has these commands only for an engine that calls itself experimental.
describe('checkpoints', () => {
  let t: TestEngine;
  let id: string;
  beforeAll(async () => {
    t = await startTestEngine();
    id = await t.ok('run', '-d', '--name', 'cc', 'busybox', 'sleep', '600');
    await t.ok('create', '--name', 'idle', 'busybox', 'true');
  });
  afterAll(async () => {
    await t[Symbol.asyncDispose]();
  });
  const call = (method: string, path: string, body?: object) =>
    rawRequest(t.engine.socket, method, `/containers/${path}`, body);
  const own = () => join(t.engine.dataRoot, 'container', 'containers', id, 'checkpoints');

  it.skipIf(criuWorks)('say why there can be none, and leave nothing', async () => {
    const { status, body } = await call('POST', 'cc/checkpoints', { CheckpointID: 'one' });
    expect(status).toBe(501);
    expect(body).toMatch(/checkpoints need criu|criu does not work on this machine: criu check: /);
    expect(existsSync(own())).toBe(false);
    expect(await t.ok('inspect', '-f', '{{.State.Status}}', 'cc')).toBe('running');
  });

  it('refuse what cannot be', async () => {
    const bad = await call('POST', 'cc/checkpoints', { CheckpointID: '../x' });
    expect(bad.status).toBe(400);
    expect(bad.body).toContain('Invalid checkpoint ID (../x)');
    expect((await call('POST', 'idle/checkpoints', { CheckpointID: 'one' })).status).toBe(409);
    expect((await call('POST', 'nobody/checkpoints', { CheckpointID: 'one' })).status).toBe(404);
    expect((await call('GET', 'cc/checkpoints?dir=relative')).status).toBe(400);
    expect((await call('DELETE', 'cc/checkpoints/none')).status).toBe(404);
    const start = await call('POST', 'idle/start?checkpoint=none');
    expect(start).toMatchObject({
      status: 404,
      json: { message: 'checkpoint none does not exist for container idle' },
    });
    expect(await t.ok('inspect', '-f', '{{.State.Status}}', 'idle')).toBe('created');
  });

  it('are listed and removed', async () => {
    expect((await call('GET', 'cc/checkpoints')).json).toEqual([]);
    for (const name of ['two', 'one']) mkdirSync(join(own(), name), { recursive: true });
    expect((await call('GET', 'cc/checkpoints')).json).toEqual([{ Name: 'one' }, { Name: 'two' }]);
    expect((await call('DELETE', 'cc/checkpoints/one')).status).toBe(204);
    const elsewhere = join(t.directory, 'kept');
    mkdirSync(join(elsewhere, 'far'), { recursive: true });
    expect((await call('GET', `cc/checkpoints?dir=${elsewhere}`)).json).toEqual([{ Name: 'far' }]);
    expect((await call('GET', 'cc/checkpoints')).json).toEqual([{ Name: 'two' }]);
  });
});
