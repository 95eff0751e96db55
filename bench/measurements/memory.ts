import type { Measurement } from '../measurement.js';

const RUNNING = 10;

/** What does the engine cost in memory, idle and per running container? */
export const memoryMeasurements: readonly Measurement[] = [
  {
    title: 'memory of the idle engine, sum of PSS (aim: at most 240 MiB)',
    unit: 'MiB',
    rounds: 1,
    measure: (engine) => engine.pssKib() / 1024,
  },
  {
    title: 'memory per running container (shim), PSS',
    unit: 'MiB',
    rounds: 1,
    aim: { kind: 'at most', ratio: 1 },
    async measure(engine) {
      const ids: string[] = [];
      for (let i = 0; i < RUNNING; i += 1) {
        const id = await engine.api.create('busybox', ['sleep', '600']);
        await engine.api.start(id);
        ids.push(id);
      }
      const kib = engine.shimPssKib();
      for (const id of ids) await engine.api.remove(id);
      return kib / 1024 / RUNNING;
    },
  },
];
