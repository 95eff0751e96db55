import { elapsedMs, type BenchEngine, type Measurement } from '../measurement.js';

const LINES = 1_000_000;
const LINE = 'a line of the log that is read back'.padEnd(39, '.');
const LOG_MB = (LINES * (LINE.length + 1)) / 1e6;
const WRITER = `yes '${LINE}' | head -n ${LINES}`;
const loggers = new Map<string, string>();

const prepareLog = async (engine: BenchEngine): Promise<void> => {
  if (loggers.has(engine.name)) return;
  const id = await engine.api.create('busybox', ['sh', '-c', WRITER]);
  await engine.api.start(id);
  await engine.api.wait(id);
  loggers.set(engine.name, id);
};

/** Remove the container whose log was read. */
export async function removeLogContainers(engine: BenchEngine): Promise<void> {
  const id = loggers.get(engine.name);
  if (id !== undefined) await engine.api.remove(id);
  loggers.delete(engine.name);
}

const CAT_MB = 256;

/** How fast do bytes move through logs and attached streams? */
export const streamMeasurements: readonly Measurement[] = [
  {
    title: 'a container writes 1,000,000 lines to its json-file log',
    unit: 'MB/s',
    rounds: 3,
    async measure({ api }) {
      const id = await api.create('busybox', ['sh', '-c', WRITER]);
      const ms = await elapsedMs(async () => {
        await api.start(id);
        await api.wait(id);
      });
      await api.remove(id);
      return LOG_MB / (ms / 1000);
    },
  },
  {
    title: '`docker logs` of 1,000,000 lines',
    unit: 'MB/s',
    rounds: 3,
    aim: { kind: 'at least', ratio: 8 },
    prepare: prepareLog,
    async measure(engine) {
      const id = loggers.get(engine.name) ?? '';
      return LOG_MB / ((await elapsedMs(() => engine.shell(`test $(docker logs ${id} | wc -l) = ${LINES}`))) / 1000);
    },
  },
  {
    title: '`run -i cat` with the default log driver, text',
    unit: 'MB/s',
    rounds: 3,
    aim: { kind: 'at least', ratio: 4 },
    async measure(engine) {
      const line = `test $(yes '${LINE}' | head -c ${CAT_MB}000000 | docker run --rm -i busybox cat | wc -c) = ${CAT_MB}000000`;
      return CAT_MB / ((await elapsedMs(() => engine.shell(line))) / 1000);
    },
  },
];
