import { waitFor } from '@flotilla/testkit';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { killProcess } from './kill-process.js';
import { startEcho, startQueries, startStream, type Traffic } from './network-streams.js';
import { startTestEngine, type TestEngine } from './test-engine.js';

describe('traffic over kills of the network service', () => {
  let t: TestEngine;
  const running: Traffic<unknown>[] = [];
  beforeAll(async () => {
    t = await startTestEngine();
  });
  afterAll(async () => {
    for (const one of running) await one.end();
    await t[Symbol.asyncDispose]();
  });

  const serving = async () => {
    const found = (await t.engine.services()).find(({ service }) => service === 'network');
    if (found === undefined || found.pid <= 0) throw new Error('the network service does not run');
    return found;
  };

  it('goes on: connections never break, and names are found again at once', async () => {
    await t.ok('network', 'create', 'app');
    const start = async (name: string, ...more: string[]): Promise<string> => {
      await t.ok('run', '-d', '--name', name, '--network', 'app', ...more, 'busybox', 'sleep', '600');
      return `/proc/${await t.ok('inspect', '-f', '{{.State.Pid}}', name)}/ns/net`;
    };
    const web = await start('web', '-p', '18080:80');
    const client = await start('client');
    const address = await t.ok('inspect', '-f', '{{.NetworkSettings.Networks.app.IPAddress}}', 'web');
    const echo = await startEcho(web);
    running.push({ report: () => Promise.resolve(), end: () => Promise.resolve(void echo.kill()) });
    const streams = await Promise.all([
      startStream(`/run/netns/${t.namespace.name}`, '127.0.0.1', 18080),
      startStream(client, address, 80),
    ]);
    const queries = await startQueries(client, 'web', address);
    running.push(...streams, queries);

    const gaps: number[] = [];
    for (let round = 0; round < 3; round++) {
      const before = await serving();
      const echoedBefore = await Promise.all(streams.map(async (stream) => (await stream.report()).echoed));
      await queries.report();
      killProcess(before.pid);
      // While it is away, and after it is back.
      for (const [index, stream] of streams.entries())
        await waitFor(async () => (await stream.report()).echoed > (echoedBefore[index] ?? 0) + 20, {
          what: 'the stream to go on',
        });
      await waitFor(
        async () => {
          const now = await serving();
          return now.health === 'SERVING' && now.pid !== before.pid;
        },
        { what: 'the network service to be back' },
      );
      const { answered, longestGapMs } = await queries.report();
      await waitFor(async () => (await queries.report()).answered > answered + 20, { what: 'names to be found again' });
      gaps.push(longestGapMs);
    }
    for (const stream of streams) expect(await stream.report()).toMatchObject({ broken: '' });
    expect(await queries.report()).toMatchObject({ wrong: [] });
    if (process.env['PRINT_GAPS'] !== undefined)
      process.stdout.write(`without an answer to a DNS query, in ms: ${gaps.map(Math.round).join(', ')}\n`);

    // A change in the meantime is known as well.
    await t.ok('rename', 'web', 'renamed');
    await t.ok('exec', 'client', 'ping', '-c', '1', 'renamed');
    expect((await t.docker(['exec', 'client', 'ping', '-c', '1', 'web'])).code).not.toBe(0);
  });
});
