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
const BYTES = `${CAT_MB}000000`;
const TEXT = `yes '${LINE}' | head -c ${BYTES}`;

const throughput = async (engine: BenchEngine, line: string): Promise<number> =>
  CAT_MB / ((await elapsedMs(() => engine.shell(line))) / 1000);

const through = (title: string, what: string, ratio: number): Measurement => ({
  title,
  unit: 'MB/s',
  rounds: 3,
  aim: { kind: 'at least', ratio },
  measure: (engine) => throughput(engine, `test $(${TEXT} | docker run --rm -i ${what} | wc -c) = ${BYTES}`),
});

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
  through('`run -i cat` with the default log driver, text', 'busybox cat', 4),
  through('`run -i cat` with log driver none, text', '--log-driver none busybox cat', 1),
  {
    title: '`docker run` of 256 MB of text out, default log driver',
    unit: 'MB/s',
    rounds: 3,
    aim: { kind: 'at least', ratio: 5 },
    measure: (engine) => throughput(engine, `test $(docker run --rm busybox sh -c "${TEXT}" | wc -c) = ${BYTES}`),
  },
  {
    title: '`docker run` of 256 MB of text out, log driver none',
    unit: 'MB/s',
    rounds: 3,
    aim: { kind: 'at least', ratio: 1 },
    measure: (engine) =>
      throughput(engine, `test $(docker run --rm --log-driver none busybox sh -c "${TEXT}" | wc -c) = ${BYTES}`),
  },
  {
    title: '`docker run -i` of 256 MB in',
    unit: 'MB/s',
    rounds: 3,
    aim: { kind: 'at least', ratio: 1 },
    measure: (engine) => throughput(engine, `test $(${TEXT} | docker run --rm -i busybox wc -c) = ${BYTES}`),
  },
];
