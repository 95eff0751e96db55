import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { takeFootprint, type Footprint } from '../e2e/footprint.js';
import { startTestEngine, type TestEngine } from '../e2e/test-engine.js';
import { type EngineSample, type ProcessSample, sampleEngine } from './engine-sample.js';
import { workloads } from './workloads.js';

// npm run test:soak: SOAK_COUNT containers (2000). Without it as many as show a leak that every container leaves, and no figure of memory.
const isLong = process.env['SOAK_COUNT'] !== undefined;
const count = Number(process.env['SOAK_COUNT'] ?? 3 * workloads.length);
const samples = isLong ? 40 : 3;
const atOnce = 2;

/** What the medians of the second and the last quarter may differ by. */
const tolerance = { pssShare: 0.08, pssKib: 4096, descriptors: 3, threads: 2 };
/** Ten minutes of replies and events are kept: with this many containers a store holds less. */
const mostStoreKib = 48 << 10;

describe(`${count} containers, one after the other`, () => {
  let t: TestEngine;
  let before: Footprint;
  const taken: EngineSample[] = [];
  beforeAll(async () => {
    t = await startTestEngine();
    // What the first of each kind makes once for all is there before the stock is taken.
    for (const [at, work] of workloads.entries()) await work(t, `first${at}`);
    before = await takeFootprint(t);
  });
  afterAll(async () => {
    await t[Symbol.asyncDispose]();
  });

  it(
    'run, and each leaves nothing',
    async () => {
      for (let done = 0; done < count;) {
        const end = Math.min(count, Math.ceil((count / samples) * (taken.length + 1)));
        const queue = Array.from({ length: end - done }, (_, at) => done + at);
        const work = async (): Promise<void> => {
          for (let at = queue.shift(); at !== undefined; at = queue.shift()) {
            await workloads[at % workloads.length]?.(t, `soak${at}`);
          }
        };
        await Promise.all(Array.from({ length: atOnce }, work));
        done = end;
        taken.push(await sampleEngine(t, done));
      }
      await before.expectUnchanged();
      if (isLong) process.stdout.write(`${table(taken)}\n`);
    },
    count * 5000,
  );

  it('keep descriptors and threads as they are', async () => {
    const early = taken[isLong ? samples / 4 : 0];
    for (const kind of ['descriptors', 'threads'] as const) {
      const most = (service: string): number => (early?.processes.get(service)?.[kind] ?? 0) + tolerance[kind];
      await expect
        .poll(async () => {
          const now = await sampleEngine(t, count);
          return [...now.processes].filter(([service, process]) => process[kind] > most(service));
        })
        .toEqual([]);
    }
    for (const [service, { pid }] of early?.processes ?? []) {
      expect([service, taken.at(-1)?.processes.get(service)?.pid]).toEqual([service, pid]);
    }
  });

  it('leave the stores small', () => {
    for (const [service, { storeKib }] of taken.at(-1)?.processes ?? []) {
      expect(storeKib, service).toBeLessThan(mostStoreKib);
    }
  });

  it.runIf(isLong)('leave memory flat', () => {
    const quarter = (number: number): EngineSample[] =>
      taken.slice((samples / 4) * (number - 1), (samples / 4) * number);
    const [second, last] = [quarter(2), quarter(4)];
    for (const service of taken[0]?.processes.keys() ?? []) {
      const early = medianOf(second, service, 'pssKib');
      expect(medianOf(last, service, 'pssKib'), service).toBeLessThan(
        early * (1 + tolerance.pssShare) + tolerance.pssKib,
      );
    }
  });
});

function medianOf(among: readonly EngineSample[], service: string, kind: keyof ProcessSample): number {
  const values = among.map(({ processes }) => processes.get(service)?.[kind] ?? 0).sort((a, b) => a - b);
  return values[Math.floor(values.length / 2)] ?? 0;
}

/** One line per service and quarter: PSS, descriptors, threads, store. */
function table(taken: readonly EngineSample[]): string {
  const size = taken.length / 4;
  const quarters = [1, 2, 3, 4].map((number) => taken.slice(size * (number - 1), size * number));
  const rows = [...(taken[0]?.processes.keys() ?? [])].map((service) => {
    const cells = quarters.map((among) => {
      const of = (kind: keyof ProcessSample): number => medianOf(among, service, kind);
      const mebibytes = (of('pssKib') / 1024).toFixed(1);
      return `${mebibytes} MiB ${of('descriptors')} fd ${of('threads')} thr ${of('storeKib')} KiB`;
    });
    return `${service}: ${cells.join(' | ')}`;
  });
  const objects = [taken[0], taken[taken.length / 2], taken.at(-1)].map((sample) => JSON.stringify(sample?.objects));
  return [...rows, ...objects].join('\n');
}
