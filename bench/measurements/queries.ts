import { requestsPerSecond } from '../http-client.js';
import type { BenchEngine, Measurement } from '../measurement.js';

const SECONDS = 2;
const created = new Map<string, string[]>();

/** Bring the number of containers that were never started to `count`. */
const containers =
  (count: number) =>
  async (engine: BenchEngine): Promise<void> => {
    const ids = created.get(engine.name) ?? [];
    created.set(engine.name, ids);
    for (const id of ids.splice(count)) await engine.api.remove(id);
    while (ids.length < count) ids.push(await engine.api.create('busybox', ['true']));
  };

/** Remove what the query measurements created. */
export const removeQueryContainers = (engine: BenchEngine): Promise<void> => containers(0)(engine);

const query = (
  title: string,
  path: (engine: BenchEngine) => string,
  connections: number,
  count: number,
  ratio?: number,
): Measurement => ({
  title,
  unit: 'req/s',
  rounds: 3,
  ...(ratio === undefined ? {} : { aim: { kind: 'at least', ratio } as const }),
  prepare: containers(count),
  measure: (engine) => requestsPerSecond(engine.api.socket, path(engine), connections, SECONDS),
});

const LIST = '/v1.41/containers/json?all=1';
const inspectPath = (engine: BenchEngine) => `/v1.41/containers/${created.get(engine.name)?.at(-1) ?? ''}/json`;
const connections = (count: number): string => `${count} connection${count === 1 ? '' : 's'}`;

/** How many questions per second does the engine answer, with how many containers present? */
export const queryMeasurements: readonly Measurement[] = [
  ...[1, 16].map((n) => query(`\`/_ping\`, ${connections(n)}`, () => '/_ping', n, 0, 1.5)),
  ...[0, 100, 500, 1000].flatMap((count) =>
    [1, 16].map((n) =>
      query(
        `\`GET /containers/json?all=1\`, ${count} containers, ${connections(n)}`,
        () => LIST,
        n,
        count,
        { 0: undefined, 100: 20, 500: 30, 1000: 30 }[count],
      ),
    ),
  ),
  ...[1, 16].map((n) => query(`inspect of one container of 1,000, ${connections(n)}`, inspectPath, n, 1000, 2)),
];
