import type { BenchEngine, Measurement } from '../measurement.js';

const AT_ONCE = 4;
const exited = new Map<string, number>();

/** Bring the number of exited containers to `count`; counts only grow. */
const containers =
  (count: number) =>
  async (engine: BenchEngine): Promise<void> => {
    const present = exited.get(engine.name) ?? 0;
    exited.set(engine.name, count);
    let missing = count - present;
    await Promise.all(
      Array.from({ length: AT_ONCE }, async () => {
        while (missing > 0) {
          missing -= 1;
          const id = await engine.api.create('busybox', ['true'], { NetworkMode: 'none' });
          await engine.api.start(id);
          await engine.api.wait(id);
        }
      }),
    );
  };

const restart = (count: number, ratio?: number): Measurement => ({
  title: `restart of the engine to the first 200 of /containers/json, ${count} exited containers`,
  unit: 'ms',
  rounds: 5,
  ...(ratio === undefined ? {} : { aim: { kind: 'at most', ratio } as const }),
  prepare: containers(count),
  measure: (engine) => engine.restart(),
});

/** How long is the engine away when it is restarted? The last part of a run: what it makes stays. */
export const restartMeasurements: readonly Measurement[] = [restart(0, 1.5), restart(100, 1.5), restart(500, 1.5)];
