import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { setTimeout as pause } from 'node:timers/promises';
import { dockerArchive, examineImageStore, gzipLayer, makeImage, plainTar } from '@flotilla/testkit';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { takeRecords, type Footprint } from '../e2e/footprint.js';
import { type FragileEngine, hasLoopDevices, lossyDisks, startFragileEngine } from '../e2e/power-failure.js';
import type { TestEngine } from '../e2e/test-engine.js';
import { isLong, random, rounds, seed } from './chance.js';

/** Commands that bring one object into being and take it away again, again and again. */
interface Cycle {
  readonly name: string;
  readonly steps: readonly (readonly string[])[];
  /** Fails unless the object is there. */
  readonly look: readonly string[];
}

/** What one of them had been told when the power went. */
interface Told {
  /** Of `steps`: the last that was acknowledged, -1 before the first. */
  step: number;
  isWaiting: boolean;
}

const cycles = ['0', '1', '2'].flatMap((number): Cycle[] => [
  {
    name: 'container',
    steps: [
      ['create', '--name', `c${number}`, '-v', '/anonymous', '-p', '0:80', 'busybox', 'sleep', '1000'],
      ['start', `c${number}`],
      ['rename', `c${number}`, `renamed${number}`],
      ['rename', `renamed${number}`, `c${number}`],
      ['rm', '-fv', `c${number}`],
    ],
    look: ['container', 'inspect', `c${number}`],
  },
  {
    name: 'volume',
    steps: [
      ['volume', 'create', `v${number}`],
      ['volume', 'rm', `v${number}`],
    ],
    look: ['volume', 'inspect', `v${number}`],
  },
  {
    name: 'network',
    steps: [
      ['network', 'create', `n${number}`],
      ['network', 'rm', `n${number}`],
    ],
    look: ['network', 'inspect', `n${number}`],
  },
  {
    name: 'reference',
    steps: [
      ['tag', 'busybox', `t${number}:1`],
      ['rmi', `t${number}:1`],
    ],
    look: ['image', 'inspect', `t${number}:1`],
  },
]);

const disks = isLong ? lossyDisks : lossyDisks.slice(1);

describe.skipIf(!hasLoopDevices).each(disks)(`power failures at any instant, $loss (seed ${seed})`, (disk) => {
  let machine: FragileEngine;
  let t: TestEngine;
  let before: Footprint;
  const next = random(seed);
  beforeAll(async () => {
    machine = await startFragileEngine(disk.mountOptions);
    t = machine.t;
    const layers = [6, 4, 2].map((size, at) => gzipLayer(plainTar([[`file${at}`, randomBytes(size << 20)]])));
    await t.registry.push(makeImage(layers), 'layered', 'latest');
    writeFileSync(`${t.directory}/layered.tar`, dockerArchive(makeImage([...layers].reverse()), ['loaded:1']));
    await t.ok('run', '--name', 'changed', 'busybox', 'dd', 'if=/dev/urandom', 'of=/f', 'bs=1M', 'count=8');
    // It is older than what is cut.
    execFileSync('sync', ['-f', t.engine.dataRoot]);
    before = await takeRecords(t);
  });
  afterAll(async () => {
    await machine[Symbol.asyncDispose]();
  });

  const expectSound = async (): Promise<void> => {
    expect(await examineImageStore(t.engine)).toEqual({ exitCode: 0, findings: [] });
    expect(await t.ok('run', '--rm', 'busybox', 'echo', 'works')).toBe('works');
  };

  it(
    'lose nothing of what was acknowledged while containers, volumes, networks and references come and go',
    async () => {
      for (let round = 0; round < rounds; round += 1) {
        const power = { isOn: true };
        const isOn = (): boolean => power.isOn;
        const told = cycles.map((): Told => ({ step: -1, isWaiting: false }));
        const work = cycles.map(async ({ steps }, at) => {
          const mine = told[at] ?? { step: -1, isWaiting: false };
          while (isOn()) {
            const step = (mine.step + 1) % steps.length;
            mine.isWaiting = true;
            const { code, stderr } = await t.docker(steps[step] ?? []);
            if (code !== 0 && isOn()) throw new Error(`${steps[step]?.join(' ') ?? ''}: ${stderr}`);
            if (code !== 0) return;
            Object.assign(mine, { step, isWaiting: false });
          }
        });
        await pause(500 + next() * 3000);
        power.isOn = false;
        machine.cutPower();
        await machine.boot();
        await Promise.all(work);
        for (const [at, { name, steps, look }] of cycles.entries()) {
          const { step, isWaiting } = told[at] ?? { step: -1, isWaiting: false };
          if (!isWaiting || (name === 'container' && step === 0)) {
            const isThere = step >= 0 && step < steps.length - 1;
            const name = step === 2 ? look.map((word) => word.replace(/^c(?=\d$)/, 'renamed')) : look;
            expect([...look, step, (await t.docker(name)).code]).toEqual([...look, step, isThere ? 0 : 1]);
          }
          // However far it was, all of it can be taken away.
          for (const last of [steps.at(-1) ?? [], ['rm', '-fv', `renamed${Math.floor(at / 4)}`]]) await t.docker(last);
        }
        await expectSound();
        await before.expectUnchanged();
      }
    },
    rounds * 180_000,
  );

  it.each<[string, (t: TestEngine) => string[], string]>([
    ['pull', (t) => ['pull', '-q', `${t.registry.address}/layered`], '/layered'],
    ['load', (t) => ['load', '-qi', `${t.directory}/layered.tar`], 'loaded:1'],
    ['commit', () => ['commit', 'changed', 'committed:1'], 'committed:1'],
  ])(
    'a %s that was interrupted left nothing, or all, and succeeds again',
    async (_what, commandFor, image) => {
      const command = commandFor(t);
      const name = image.startsWith('/') ? `${t.registry.address}${image}` : image;
      const began = performance.now();
      await t.ok(...command);
      const lastsMs = performance.now() - began;
      for (let round = 0; round < rounds; round += 1) {
        await t.ok('rmi', name);
        const running = t.docker(command);
        // Also the second after, in which layers are not yet on the disk.
        await pause(next() * (lastsMs + 1000));
        machine.cutPower();
        await machine.boot();
        const { code } = await running;
        await expectSound();
        if (code === 0) await t.ok('image', 'inspect', name);
        await t.ok(...command);
        await t.ok('create', '--name', 'made', name, 'x');
        await t.ok('rm', 'made');
        await expectSound();
      }
      await t.ok('rmi', name);
      // A second commit takes the name from what the first had made when nobody heard its answer.
      await t.ok('image', 'prune', '-f');
      await before.expectUnchanged();
    },
    rounds * 180_000,
  );
});
