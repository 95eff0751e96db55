import { elapsedMs, type BenchEngine, type Measurement } from '../measurement.js';

const apiRun = async ({ api }: BenchEngine, hostConfig: object): Promise<void> => {
  const id = await api.create('busybox', ['true'], hostConfig);
  await api.start(id);
  const code = await api.wait(id);
  if (code !== 0) throw new Error(`true ended with ${code}`);
  await api.remove(id);
};

/** How long does it take to run one short container, and many at once? */
export const lifecycleMeasurements: readonly Measurement[] = [
  {
    title: 'API create+start+wait+rm of `true`, default bridge',
    unit: 'ms',
    rounds: 15,
    aim: { kind: 'at most', ratio: 0.5 },
    measure: (engine) => elapsedMs(() => apiRun(engine, {})),
  },
  {
    title: 'API create+start+wait+rm of `true`, network none',
    unit: 'ms',
    rounds: 15,
    aim: { kind: 'at most', ratio: 0.5 },
    measure: (engine) => elapsedMs(() => apiRun(engine, { NetworkMode: 'none' })),
  },
  {
    title: 'CLI `run --rm busybox true`, default bridge',
    unit: 'ms',
    rounds: 15,
    aim: { kind: 'at most', ratio: 0.6 },
    measure: (engine) => elapsedMs(() => engine.cli(['run', '--rm', 'busybox', 'true'])),
  },
  {
    title: 'CLI `run --rm --network none busybox true`',
    unit: 'ms',
    rounds: 15,
    aim: { kind: 'at most', ratio: 0.6 },
    measure: (engine) => elapsedMs(() => engine.cli(['run', '--rm', '--network', 'none', 'busybox', 'true'])),
  },
  {
    title: '20 containers created and started at once (API)',
    unit: 'ms',
    rounds: 5,
    aim: { kind: 'at most', ratio: 0.6 },
    async measure({ api }) {
      const ids: string[] = [];
      const ms = await elapsedMs(() =>
        Promise.all(
          Array.from({ length: 20 }, async () => {
            const id = await api.create('busybox', ['sleep', '600']);
            ids.push(id);
            await api.start(id);
          }),
        ),
      );
      for (const id of ids) await api.remove(id);
      return ms;
    },
  },
];
