import { requestsPerSecond } from '../http-client.js';
import type { BenchEngine, Measurement } from '../measurement.js';

const SECONDS = 2;
const LABEL = 'bench=queries';
const created = new Map<string, string[]>();

const prepare = async (engine: BenchEngine): Promise<void> => {
  if (created.has(engine.name)) return;
  const ids: string[] = [];
  for (let i = 0; i < 100; i += 1) {
    const { body } = await engine.api.call('POST', '/containers/create', [201], {
      Image: 'busybox',
      Cmd: ['true'],
      Labels: { [LABEL.split('=')[0] ?? '']: 'queries' },
    });
    ids.push((JSON.parse(body.toString()) as { Id: string }).Id);
  }
  created.set(engine.name, ids);
};

/** Remove what the query measurements created. */
export async function removeQueryContainers(engine: BenchEngine): Promise<void> {
  for (const id of created.get(engine.name) ?? []) await engine.api.remove(id);
  created.delete(engine.name);
}

const query = (
  title: string,
  path: (engine: BenchEngine) => string,
  connections: number,
  ratio: number,
): Measurement => ({
  title,
  unit: 'req/s',
  rounds: 3,
  aim: { kind: 'at least', ratio },
  prepare,
  measure: (engine) => requestsPerSecond(engine.api.socket, path(engine), connections, SECONDS),
});

const inspectPath = (engine: BenchEngine) => `/v1.41/containers/${created.get(engine.name)?.[50] ?? ''}/json`;

/** How many questions per second does the engine answer with 100 containers present? */
export const queryMeasurements: readonly Measurement[] = [
  query('`/_ping`, 1 connection', () => '/_ping', 1, 1.5),
  query('`/_ping`, 16 connections', () => '/_ping', 16, 1.5),
  query('`GET /containers/json?all=1`, 100 containers, 1 connection', () => '/v1.41/containers/json?all=1', 1, 20),
  query('`GET /containers/json?all=1`, 100 containers, 16 connections', () => '/v1.41/containers/json?all=1', 16, 20),
  query('inspect of a container, 1 connection', inspectPath, 1, 2),
  query('inspect of a container, 16 connections', inspectPath, 16, 2),
];
