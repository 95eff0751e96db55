import { makeApplication, type Application } from '@flotilla/testkit';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { cacheDirectory, compose1Project, composeProject, type ComposeProject } from './compose-cli.js';
import { startTestEngine, type TestEngine } from './test-engine.js';

describe('nginx, Node, PostgreSQL and Redis by docker compose', () => {
  let t: TestEngine;
  let application: Application;
  let shop: ComposeProject;
  beforeAll(async () => {
    application = makeApplication(cacheDirectory);
    t = await startTestEngine();
    shop = composeProject(t, { name: 'shop', directory: application.directory });
    await t.ok('load', '-qi', application.archive);
  });
  afterAll(async () => {
    await t[Symbol.asyncDispose]();
  });
  const get = (path: string) =>
    JSON.parse(t.namespace.run('curl', ['-sS', '--max-time', '20', `http://127.0.0.1:8080${path}`])) as Record<
      string,
      unknown
    >;
  const running = async () =>
    (await shop.ok('ps', '--format', '{{.Service}} {{.State}} {{.Health}}')).split('\n').sort();
  const idOf = async (service: string) => (await shop.ok('ps', '-q', service)).trim();

  it('comes up with every service healthy and answers through its proxy', async () => {
    await shop.ok('up', '-d', '--wait');
    const healthy = ['app', 'cache', 'db', 'web'].map((service) => `${service} running healthy`);
    expect(await running()).toEqual([...healthy, 'worker running ']);
    expect(get('/visits')).toMatchObject({ visits: 1, hits: 1 });
    expect(get('/workers')).toEqual({ workers: [(await idOf('worker')).slice(0, 12)] });
  });

  it('leaves everything as it is when nothing has changed', async () => {
    const before = await shop.ok('ps', '-q');
    expect((await shop.run('up', '-d', '--wait')).stderr).not.toMatch(/Recreate|Starting|Creating/);
    expect(await shop.ok('ps', '-q')).toBe(before);
  });

  it('finds scaled workers by their name', async () => {
    await shop.ok('up', '-d', '--scale', 'worker=3', '--no-recreate');
    const ids = (await shop.ok('ps', '-q', 'worker')).split('\n').map((id) => id.slice(0, 12));
    expect(ids).toHaveLength(3);
    await expect.poll(() => get('/workers')).toEqual({ workers: ids.sort() });
    await shop.ok('up', '-d', '--scale', 'worker=1', '--no-recreate');
    expect((get('/workers') as { workers: string[] }).workers).toHaveLength(1);
  });

  it('goes on after a restart of its database and its cache', async () => {
    await shop.ok('restart', 'db', 'cache');
    await expect.poll(() => get('/visits')).toMatchObject({ visits: 2, hits: 1 });
    const query = ['psql', '-h', '127.0.0.1', '-U', 'postgres', '-Atc', 'SELECT count(*) FROM visits'];
    expect(await shop.ok('exec', '-T', '-e', 'PGPASSWORD=only-for-tests', 'db', ...query)).toBe('2');
    expect(await shop.ok('logs', '--no-log-prefix', 'web')).toContain('"GET /visits HTTP/1.1" 200');
  });

  it('keeps the data over down and up, and gives it up with down -v', async () => {
    await shop.ok('down');
    expect(await t.ok('ps', '-aq')).toBe('');
    const named = ['volume', 'ls', '-q', '--filter', 'label=com.docker.compose.project=shop'];
    expect(await t.ok(...named)).toBe('shop_data');
    await shop.ok('up', '-d', '--wait');
    expect(get('/visits')).toMatchObject({ visits: 3, hits: 1 });
    await shop.ok('down', '-v');
    expect(await t.ok(...named)).toBe('');
    expect(await t.ok('network', 'ls', '-q', '--filter', 'label=com.docker.compose.project=shop')).toBe('');
    await t.ok('volume', 'prune', '-f'); // what the first `down` left: the anonymous one of Redis
    expect(await t.ok('volume', 'ls', '-q')).toBe('');
  });

  it('comes up with docker-compose 1.29 too', async () => {
    const older = compose1Project(t, { name: 'older', directory: application.directory });
    const files = ['compose.yaml', 'compose-1.yaml'].flatMap((name) => ['-f', `${application.directory}/${name}`]);
    await older.ok(...files, 'up', '-d');
    await expect.poll(() => get('/visits')).toMatchObject({ visits: 1, hits: 1 });
    await older.ok(...files, 'up', '-d', '--force-recreate', '--no-deps', 'db');
    await expect.poll(() => get('/visits')).toMatchObject({ visits: 2, hits: 2 });
    await older.ok(...files, 'down', '-v');
    expect(await t.ok('ps', '-aq')).toBe('');
    expect(await t.ok('volume', 'ls', '-q', '--filter', 'label=com.docker.compose.project=older')).toBe('');
  });
});
