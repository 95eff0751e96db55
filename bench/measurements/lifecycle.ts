import { elapsedMs, type BenchEngine, type Measurement } from '../measurement.js';

const apiRun = async ({ api }: BenchEngine, hostConfig: object): Promise<void> => {
  const id = await api.create('busybox', ['true'], hostConfig);
  await api.start(id);
  const code = await api.wait(id);
  if (code !== 0) throw new Error(`true ended with ${code}`);
  await api.remove(id);
};

const idle = new Map<string, string>();

const startIdle = async (engine: BenchEngine): Promise<void> => {
  if (!idle.has(engine.name)) idle.set(engine.name, await started(engine));
};

/** Remove the container that programs were run in. */
export async function removeIdleContainers(engine: BenchEngine): Promise<void> {
  const id = idle.get(engine.name);
  if (id !== undefined) await engine.api.remove(id);
  idle.delete(engine.name);
}

const created = ({ api }: BenchEngine): Promise<string> => api.create('busybox', ['sleep', '600']);
const started = async (engine: BenchEngine): Promise<string> => {
  const id = await created(engine);
  await engine.api.start(id);
  return id;
};

/** One step of a container's life: `before` brings it there, what is left of it is removed afterwards. */
function step(
  title: string,
  action: (engine: BenchEngine, id: string) => Promise<unknown>,
  before?: (engine: BenchEngine) => Promise<string>,
): Measurement {
  return {
    title: `API ${title}`,
    unit: 'ms',
    rounds: 15,
    async measure(engine) {
      let id = (await before?.(engine)) ?? '';
      const ms = await elapsedMs(async () => {
        const result = await action(engine, id);
        if (typeof result === 'string') id = result;
      });
      await engine.api.call('DELETE', `/containers/${id}?force=1`, [204, 404]);
      return ms;
    },
  };
}

function together(count: number, rounds: number, ratio: number): Measurement {
  return {
    title: `${count} containers created and started at once (API)`,
    unit: 'ms',
    rounds,
    aim: { kind: 'at most', ratio },
    async measure(engine) {
      const ids: string[] = [];
      const ms = await elapsedMs(() =>
        Promise.all(
          Array.from({ length: count }, async () => {
            ids.push(await started(engine));
          }),
        ),
      );
      for (const id of ids) await engine.api.remove(id);
      return ms;
    },
  };
}

/** How long does it take to run one short container, and many at once? */
export const lifecycleMeasurements: readonly Measurement[] = [
  {
    title: 'API create+start+wait+rm of `true`, default bridge',
    unit: 'ms',
    rounds: 15,
    aim: { kind: 'at most', ratio: 0.45 },
    measure: (engine) => elapsedMs(() => apiRun(engine, {})),
  },
  {
    title: 'API create+start+wait+rm of `true`, network none',
    unit: 'ms',
    rounds: 15,
    aim: { kind: 'at most', ratio: 0.45 },
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
    title: 'API exec of `true` in a running container',
    unit: 'ms',
    rounds: 15,
    aim: { kind: 'at most', ratio: 0.5 },
    prepare: startIdle,
    measure: (engine) => elapsedMs(() => engine.api.exec(idle.get(engine.name) ?? '', ['true'])),
  },
  {
    title: 'CLI `exec CONTAINER true`',
    unit: 'ms',
    rounds: 15,
    aim: { kind: 'at most', ratio: 0.5 },
    prepare: startIdle,
    measure: (engine) => elapsedMs(() => engine.cli(['exec', idle.get(engine.name) ?? '', 'true'])),
  },
  step('create', ({ api }) => api.create('busybox', ['sleep', '600'])),
  step('start', ({ api }, id) => api.start(id), created),
  step('stop with SIGKILL', ({ api }, id) => api.stop(id), started),
  step(
    'remove of an exited container',
    ({ api }, id) => api.remove(id),
    async (engine) => {
      const id = await started(engine);
      await engine.api.stop(id);
      return id;
    },
  ),
  together(20, 5, 0.45),
  together(100, 2, 0.45),
];
