import { waitFor } from '@flotilla/testkit';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { startTestEngine, type TestEngine } from './test-engine.js';

describe('links on the default bridge', () => {
  let t: TestEngine;
  beforeAll(async () => {
    t = await startTestEngine();
  });
  afterAll(async () => {
    await t[Symbol.asyncDispose]();
  });
  afterEach(async () => {
    const ids = (await t.ok('ps', '-aq')).split('\n').filter(Boolean);
    if (ids.length > 0) await t.ok('rm', '-fv', ...ids);
  });
  const inspect = (name: string, format: string) => t.ok('inspect', '-f', format, name);
  const linksOf = async (name: string): Promise<unknown> =>
    JSON.parse(await inspect(name, '{{json .HostConfig.Links}}'));
  const addressOf = (name: string) => inspect(name, '{{.NetworkSettings.Networks.bridge.IPAddress}}');
  const sleeper = ['busybox', 'sleep', '600'];
  const hostsOf = async (name: string, first: string) =>
    (await t.ok('exec', name, 'cat', '/etc/hosts')).split('\n').find((line) => line.split(/\s+/)[1] === first);

  it('are lines of /etc/hosts, variables, and shown', async () => {
    await t.ok('run', '-d', '--name', 'db', '--expose', '6379', '-e', 'A=1', '--hostname', 'dbhost', ...sleeper);
    await t.ok('run', '-d', '--name', 'web', '--link', 'db:my-db', '-e', 'MY_DB_NAME=mine', ...sleeper);
    const address = await addressOf('db');
    expect(await hostsOf('web', 'my-db')).toBe(`${address}\tmy-db dbhost db`);
    expect(await linksOf('web')).toEqual(['/db:/web/my-db']);
    const environment = await t.ok('exec', 'web', 'sh', '-c', 'tr "\\0" "\\n" </proc/1/environ');
    expect(environment.split('\n')).toEqual(
      expect.arrayContaining([
        `MY_DB_PORT=tcp://${address}:6379`,
        `MY_DB_PORT_6379_TCP_ADDR=${address}`,
        'MY_DB_ENV_A=1',
        'MY_DB_NAME=mine',
      ]),
    );
    expect(await t.ok('exec', 'web', 'sh', '-c', 'echo $MY_DB_PORT_6379_TCP_PORT')).toBe('6379');
    expect((await t.ok('exec', 'web', 'ping', '-c', '1', 'my-db')).split('\n')[0]).toContain(address);
  });

  it('follow a container that is started again with another address, renamed and removed', async () => {
    await t.ok('run', '-d', '--name', 'db', ...sleeper);
    await t.ok('run', '-d', '--name', 'web', '--link', 'db:d', ...sleeper);
    const before = await addressOf('db');
    await t.ok('stop', '-t', '0', 'db');
    await t.ok('run', '-d', '--name', 'other', ...sleeper);
    await t.ok('start', 'db');
    const after = await addressOf('db');
    expect([before, await addressOf('other')]).not.toContain(after);
    expect(await hostsOf('web', 'd')).toContain(after);
    await t.ok('rename', 'db', 'base');
    await t.ok('rename', 'web', 'front');
    expect(await linksOf('front')).toEqual(['/base:/front/d']);
    await t.ok('rm', '-f', 'base');
    await waitFor(async () => (await linksOf('front')) === null, { what: 'the end of the link' });
    await t.ok('restart', '-t', '0', 'front');
    expect(await hostsOf('front', 'd')).toBeUndefined();
  });

  it('are removed by rm --link', async () => {
    await t.ok('run', '-d', '--name', 'db', ...sleeper);
    await t.ok('run', '-d', '--name', 'web', '--link', 'db:d', '--link', 'db:e', ...sleeper);
    await t.ok('rm', '--link', '/web/d');
    expect(await linksOf('web')).toEqual(['/db:/web/e']);
    expect(await hostsOf('web', 'd')).toBeUndefined();
    expect(await hostsOf('web', 'e')).toContain(await addressOf('db'));
    expect((await t.docker(['rm', '--link', '/web/d'])).stderr).toContain('No such container: web/d');
    expect((await t.docker(['rm', '--link', 'web'])).stderr).toContain('cannot remove the default link name');
    expect(await t.ok('ps', '-q')).not.toBe('');
  });

  it('are refused where they cannot be', async () => {
    const none = await t.docker(['create', '--name', 'web', '--link', 'nobody:x', 'busybox']);
    expect(none).toMatchObject({ code: 1 });
    expect(none.stderr).toContain('could not get container for nobody: No such container: nobody');
    await t.ok('create', '--name', 'db', ...sleeper);
    const idle = await t.docker(['run', '--name', 'web', '--link', 'db:d', 'busybox', 'true']);
    expect(idle.code).toBe(125);
    expect(idle.stderr).toContain('Cannot link to a non running container: /db AS /web/d');
    await t.ok('network', 'create', 'front');
    await t.ok('run', '-d', '--name', 'far', '--network', 'front', ...sleeper);
    const far = await t.docker(['run', '--name', 'web2', '--link', 'far:d', 'busybox', 'true']);
    expect(far.stderr).toContain('Cannot link to /far, as it does not belong to the default network');
    await t.ok('run', '-d', '--name', 'hosted', '--network', 'host', ...sleeper);
    const hosted = await t.docker(['create', '--link', 'hosted:d', 'busybox']);
    expect(hosted.stderr).toContain("host type networking can't be used with links");
    expect((await t.ok('ps', '-a', '--format', '{{.Names}}')).split('\n').sort()).toEqual([
      'db',
      'far',
      'hosted',
      'web',
      'web2',
    ]);
  });
});
