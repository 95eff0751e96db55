import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { waitFor } from '@flotilla/testkit';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { composeProject, type ComposeProject } from './compose-cli.js';
import { takeFootprint, type Footprint } from './footprint.js';
import { startTestEngine, type TestEngine } from './test-engine.js';

describe('kill -9 of a service during up and down', () => {
  let t: TestEngine;
  let project: ComposeProject;
  let footprint: Footprint;
  beforeAll(async () => {
    t = await startTestEngine();
    project = composeProject(t, { name: 'k', directory: join(import.meta.dirname, 'compose-projects/kills') });
    footprint = await takeFootprint(t);
  });
  afterAll(async () => {
    await t[Symbol.asyncDispose]();
  });

  const pidOf = async (service: string) => (await t.engine.services()).find((it) => it.service === service)?.pid ?? 0;
  const allServe = () =>
    waitFor(async () => (await t.engine.services()).every(({ health }) => health === 'SERVING'), {
      what: 'every service to serve',
    });

  /**
   * Run compose and kill the service as soon as compose says `moment`. The gateway holds the client's connections: without it
   * compose must fail with a reason, and succeed when it is repeated. Without any other, it must not notice.
   */
  const survive = async (service: string, moment: RegExp, ...args: string[]): Promise<void> => {
    const pid = await pidOf(service);
    const running = project.follow(...args);
    await waitFor(() => moment.test(running.text()), { what: `${moment} of ${args[0] ?? ''}`, intervalMs: 1 });
    process.kill(pid, 'SIGKILL');
    const code = await running.ended;
    await waitFor(() => !existsSync(`/proc/${pid}`), { what: `the end of ${service}` });
    if (service !== 'api-gateway') expect(code, running.text()).toBe(0);
    else if (code !== 0) expect(running.text()).toMatch(/EOF|Cannot connect|connection re/);
    await allServe();
    if (code !== 0) await project.ok(...args);
  };

  it.each([
    { service: 'network', up: /first-1 +Starting/, down: /Network k_\w+ +Removing/ },
    { service: 'volume', up: /Volume "k_\w+" +Creating/, down: /first-1 +Stopping/ },
    { service: 'container', up: /first-1 +Starting/, down: /third-\d +Stopping/ },
    { service: 'image', up: /first-1 +Creating/, down: /third-\d +Removing/ },
    { service: 'api-gateway', up: /first-1 +Starting/, down: /first-1 +Removing/ },
  ])('$service: the application is there, and gone afterwards', async ({ service, up, down }) => {
    await survive(service, up, 'up', '-d', '--wait');
    const states = await project.ok('ps', '-a', '--format', '{{.Service}} {{.State}} {{.Health}}');
    expect(states.split('\n').sort()).toEqual([
      'first running healthy',
      'init exited ',
      'second running ',
      'third running ',
      'third running ',
    ]);
    // Once by `init`, and again where `up` had to be repeated.
    const made = service === 'api-gateway' ? /^made\n(made\n)?$/ : /^made\n$/;
    expect(`${await project.ok('exec', '-T', 'third', 'wget', '-qO-', 'http://first/')}\n`).toMatch(made);
    expect(t.namespace.run('curl', ['-sS', '--max-time', '10', 'http://127.0.0.1:18080/'])).toMatch(made);
    await survive(service, down, 'down', '-v');
    await footprint.expectUnchanged();
  });
});
