import { readFileSync, writeFileSync } from 'node:fs';
import { waitFor } from '@flotilla/testkit';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startTestEngine, type TestEngine } from './test-engine.js';

describe('SIGHUP', () => {
  let t: TestEngine;
  beforeAll(async () => {
    t = await startTestEngine({ daemonJson: { 'registry-mirrors': ['http://127.0.0.1:7001/'] } });
  });
  afterAll(async () => {
    await t[Symbol.asyncDispose]();
  });
  const mirrors = () => t.ok('info', '-f', '{{json .RegistryConfig.Mirrors}}');
  const reload = async (daemonJson: object | string, outcome: string): Promise<void> => {
    const text = typeof daemonJson === 'string' ? daemonJson : JSON.stringify(daemonJson);
    writeFileSync(t.engine.configFile, text);
    const told = (): number => readFileSync(t.engine.logFile, 'utf8').split(outcome).length;
    const before = told();
    process.kill(t.engine.launcherPid, 'SIGHUP');
    await waitFor(() => told() > before, { what: `"${outcome}"` });
  };

  it('puts new registry settings in force while containers and services go on', async () => {
    const pids = async () => (await t.engine.services()).map(({ pid }) => pid);
    const before = await pids();
    expect(await mirrors()).toBe('["http://127.0.0.1:7001/"]');
    const settings = { 'registry-mirrors': ['http://127.0.0.1:7002/'], 'max-concurrent-downloads': 1, debug: true };
    await reload(settings, 'configuration reloaded');
    // The gateway keeps what services tell of themselves for two seconds.
    await waitFor(async () => (await mirrors()) === '["http://127.0.0.1:7002/"]', { what: 'the new mirror' });
    expect(readFileSync(t.engine.logFile, 'utf8')).toMatch(
      /counts from the next start of the engine.*debug|debug.*counts from the next start/s,
    );
    expect(await pids()).toEqual(before);
  });

  it.each<[string, object | string]>([
    ['broken JSON', '{'],
    ['an unknown key', { 'registry-mirrors': [], 'no-such-key': 1 }],
    ['a wrong value', { 'max-concurrent-downloads': 0 }],
    ['a mirror that is none', { 'registry-mirrors': ['ftp://x/'] }],
  ])('%s changes nothing', async (_what, daemonJson) => {
    const files = (): string[] =>
      ['registry-proxy', 'image', 'container'].map((name) =>
        readFileSync(`${t.engine.execRoot}/config/${name}.json`, 'utf8'),
      );
    const before = files();
    await reload(daemonJson, 'configuration not reloaded, nothing has changed');
    expect(files()).toEqual(before);
    expect(await mirrors()).toBe('["http://127.0.0.1:7002/"]');
  });

  it('a service that starts again starts with the new settings', async () => {
    const proxy = async () => (await t.engine.services()).find(({ service }) => service === 'registry-proxy');
    const before = await proxy();
    process.kill(before?.pid ?? 0, 'SIGKILL');
    await waitFor(
      async () => {
        const now = await proxy();
        return now?.health === 'SERVING' && now.pid !== before?.pid;
      },
      { what: 'registry-proxy to be back' },
    );
    expect(await mirrors()).toBe('["http://127.0.0.1:7002/"]');
  });
});
