import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { setTimeout as pause } from 'node:timers/promises';
import { waitFor } from '@flotilla/testkit';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { takeFootprint, type Footprint } from '../e2e/footprint.js';
import { killProcess } from '../e2e/kill-process.js';
import { startTestEngine, type TestEngine } from '../e2e/test-engine.js';
import { isLong, random, rounds, seed } from './chance.js';
import { look, type Phase, phases, prepareSubject, removeSubject, SUBJECT, settled, shimOf } from './subject.js';

const victims = ['container', 'image', 'network', 'api-gateway', 'shim', 'all'] as const;
type Victim = (typeof victims)[number];

/** Lines of one pipe buffer: what a kill may cost a log at most (docs/architecture.md). */
const MOST_LOST_BYTES = 65_536;

describe(`kill -9 of anything at any instant (seed ${seed})`, () => {
  let t: TestEngine;
  let footprint: Footprint;
  let bystander: { id: string; pid: number };
  const next = random(seed);

  beforeAll(async () => {
    t = await startTestEngine();
    // What the first container makes once for all is there before the stock is taken.
    await t.ok('run', '-d', '--name', 'bystander', 'busybox', 'sh', '-c', counting);
    const seen = await look(t, 'bystander');
    bystander = { id: seen?.id ?? '', pid: seen?.pid ?? 0 };
    footprint = await takeFootprint(t);
  });
  afterAll(async () => {
    await t[Symbol.asyncDispose]();
  });

  const counting = 'i=0; while :; do echo $i; i=$((i+1)); sleep 0.01; done';

  const healthy = async (killed: readonly number[]): Promise<boolean> => {
    const services = await t.engine.services();
    return (
      services.length > 0 &&
      services.every(({ health, pid }) => health === 'SERVING' && pid > 0 && !killed.includes(pid))
    );
  };

  /** @returns the processes that were killed */
  async function kill(victim: Victim, shim: number | undefined): Promise<number[]> {
    const services = await t.engine.services();
    const pids =
      victim === 'all'
        ? [t.engine.launcherPid, ...services.map(({ pid }) => pid)]
        : victim === 'shim'
          ? [shim ?? 0]
          : services.filter(({ service }) => service === victim).map(({ pid }) => pid);
    const alive = pids.filter((pid) => pid > 0 && existsSync(`/proc/${pid}`));
    for (const pid of alive) killProcess(pid);
    await waitFor(() => alive.every((pid) => !existsSync(`/proc/${pid}`)), { what: 'the end of the killed' });
    return alive;
  }

  async function round(victim: Victim, phase: Phase): Promise<void> {
    await prepareSubject(t, phase);
    const before = await look(t, SUBJECT);
    const command = phase.command === undefined ? undefined : start(phase.command);
    await pause(next() * phase.spanMs);
    const shim = before === undefined ? undefined : shimOf(before.id);
    const killed = await kill(victim, shim);
    if (victim === 'all') await t.engine.start();
    await waitFor(() => healthy(killed), { what: 'the engine to be whole', timeoutMs: 60_000 });
    const isOpen = phase.name.startsWith('attached');
    if (isOpen) command?.child.kill('SIGKILL');
    const code = await command?.ended;
    const after = await settled(t);
    if (victim !== 'shim' && victim !== 'all' && victim !== 'api-gateway') {
      // Requests that were under way succeed, once.
      if (command !== undefined && !isOpen) expect(phase.exitCodes, command.text()).toContain(code);
      expect(after?.status ?? 'gone').toBe(phase.leaves);
    }
    if (before?.status === 'running' && phase.leaves === 'running' && phase.name !== 'restarting') {
      if (victim === 'shim' && killed.length > 0) expect(after).toMatchObject({ status: 'exited', exitCode: 137 });
      else expect(after?.pid).toBe(before.pid);
    }
    if (after !== undefined) expectNumbered((await t.docker(['logs', SUBJECT])).stdout, phase.name === 'restarting');
    await removeSubject(t);
    expect(await look(t, 'bystander')).toMatchObject({ ...bystander, status: 'running' });
  }

  function start(args: readonly string[]) {
    const child = spawn('docker', [...args], {
      env: { ...process.env, DOCKER_HOST: `unix://${t.engine.socket}` },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let text = '';
    child.stdout.resume();
    child.stderr.on('data', (chunk: Buffer) => (text += chunk.toString()));
    const ended = once(child, 'close').then(([code]) => code as number | null);
    return { child, ended, text: () => text };
  }

  const cells = victims.flatMap((victim) => phases.map((phase) => ({ victim, name: phase.name, phase })));
  // Each phase with one victim, and those that take the most steps with the two that matter most.
  const short = phases.flatMap((phase, at) => {
    const isLongSaga = ['starting', 'removing', 'restarting'].includes(phase.name);
    const chosen: readonly Victim[] = isLongSaga ? ['container', 'all'] : [victims[at % victims.length] ?? 'all'];
    return chosen.map((victim) => ({ victim, name: phase.name, phase }));
  });
  it.each(isLong ? cells : short)(
    '$victim, $name',
    async ({ victim, phase }) => {
      for (let i = 0; i < rounds; i += 1) await round(victim, phase);
    },
    rounds * 120_000,
  );

  it('leaves no process, mount, cgroup, link, rule, file or record, and no gap in a log', async () => {
    await footprint.expectUnchanged();
    expectNumbered((await t.docker(['logs', 'bystander'])).stdout);
  });
});

/**
 * Lines are 0, 1, 2...: none twice, none out of order, and no gap of more than a pipe's worth. A restart begins anew; with `losesFirst` the
 * first lines after one may be among those that are lost.
 */
function expectNumbered(text: string, losesFirst = false): void {
  let last = -1;
  let lostBytes = 0;
  for (const line of text.split('\n').slice(0, -1)) {
    const number = Number(line);
    if (number === 0 && last >= 0) last = -1;
    else if (losesFirst && number <= last) {
      last = -1;
      losesFirst = false;
    }
    expect(number, `after ${last}`).toBeGreaterThan(last);
    for (let missing = last + 1; missing < number; missing += 1) lostBytes += String(missing).length + 1;
    last = number;
  }
  expect(lostBytes).toBeLessThanOrEqual(MOST_LOST_BYTES);
}
