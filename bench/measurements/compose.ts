import { join } from 'node:path';
import { installComposePlugin, makeApplication, type Application } from '@flotilla/testkit';
import { elapsedMs, type BenchEngine, type Measurement } from '../measurement.js';

const cacheDirectory = join(process.cwd(), '.cache');
const loaded = new Set<string>();
let application: Application | undefined;

const compose = (engine: BenchEngine, words: string): void => {
  const { directory } = (application ??= makeApplication(cacheDirectory));
  engine.shell(
    `DOCKER_CONFIG=${engine.scratch}/docker-config docker compose --project-directory ${directory} -p bench ${words}`,
  );
};

const prepare = (engine: BenchEngine): void => {
  if (loaded.has(engine.name)) return;
  loaded.add(engine.name);
  application ??= makeApplication(cacheDirectory);
  installComposePlugin(cacheDirectory, `${engine.scratch}/docker-config`);
  engine.cli(['load', '-q', '-i', application.archive]);
};

/** How long does a real application take to come up and to go? */
export const composeMeasurements: readonly Measurement[] = [
  {
    title: '`docker compose up -d --wait` of nginx, Node, PostgreSQL (new data) and Redis until all are healthy',
    unit: 'ms',
    rounds: 5,
    aim: { kind: 'at most', ratio: 0.6 },
    prepare,
    measure: (engine) => elapsedMs(() => compose(engine, 'up -d --wait')),
    cleanUp: (engine) => compose(engine, 'down -v -t 1'),
  },
  {
    title: '`docker compose up -d --wait` of this application with the data of an earlier life',
    unit: 'ms',
    rounds: 5,
    aim: { kind: 'at most', ratio: 0.6 },
    prepare(engine) {
      prepare(engine);
      compose(engine, 'up -d --wait');
      compose(engine, 'down');
    },
    measure: (engine) => elapsedMs(() => compose(engine, 'up -d --wait')),
    cleanUp: (engine) => compose(engine, 'down'),
  },
  {
    title: '`docker compose up --no-start` of this application: networks, volume, containers',
    unit: 'ms',
    rounds: 5,
    prepare(engine) {
      prepare(engine);
      compose(engine, 'down -v');
    },
    measure: (engine) => elapsedMs(() => compose(engine, 'up --no-start')),
    cleanUp: (engine) => compose(engine, 'down -v'),
  },
  {
    title: '`docker compose down -v` of this application',
    unit: 'ms',
    rounds: 5,
    prepare,
    async measure(engine) {
      compose(engine, 'up -d --wait');
      return await elapsedMs(() => compose(engine, 'down -v -t 1'));
    },
  },
];
