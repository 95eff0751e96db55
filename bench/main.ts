import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { loadavg } from 'node:os';
import { join } from 'node:path';
import { busyboxImage, debianImage } from '@flotilla/testkit';
import { startBenchEngine, type StartedEngine } from './engines.js';
import { imageMeasurements } from './measurements/images.js';
import { lifecycleMeasurements } from './measurements/lifecycle.js';
import { memoryMeasurements } from './measurements/memory.js';
import { queryMeasurements, removeQueryContainers } from './measurements/queries.js';
import { removeLogContainers, streamMeasurements } from './measurements/streams.js';
import type { Measurement } from './measurement.js';
import { currentCommit, renderReport, type Row } from './report.js';

// Usage: npm run bench [-- --only WORD] [-- --out FILE]
const root = process.cwd();
const option = (name: string): string | undefined => {
  const at = process.argv.indexOf(`--${name}`);
  return at < 0 ? undefined : process.argv[at + 1];
};
const only = option('only');
const out = option('out') ?? join(root, 'bench/RESULTS.md');
const START_ROUNDS = 5;

const loadBefore = loadavg()[0] ?? 0;
const cacheDirectory = join(root, '.cache');
mkdirSync(cacheDirectory, { recursive: true });
const work = mkdtempSync('/dev/shm/flotilla-bench-');
const images = [
  { image: busyboxImage(work), repository: 'busybox', tag: 'latest' },
  { image: debianImage(cacheDirectory), repository: 'debian', tag: 'bookworm' },
];
const rows: Row[] = [];
const record = (measurement: Row['measurement'], flotilla: number[], dockerd: number[]): void => {
  rows.push({ measurement, flotilla, dockerd });
  console.log(
    `${measurement.title}: flotilla ${flotilla.map((v) => v.toFixed(1)).join(' ')} | dockerd ${dockerd.map((v) => v.toFixed(1)).join(' ')} ${measurement.unit}`,
  );
};

async function runMeasurement(measurement: Measurement, engines: readonly StartedEngine[]): Promise<void> {
  const results = new Map<string, number[]>([
    ['flotilla', []],
    ['dockerd', []],
  ]);
  for (const { bench } of engines) await measurement.prepare?.(bench);
  for (let round = 0; round < measurement.rounds; round += 1) {
    for (const { bench } of engines) {
      try {
        results.get(bench.name)?.push(await measurement.measure(bench));
        await measurement.cleanUp?.(bench);
      } catch (err) {
        console.error(`${measurement.title} on ${bench.name}:`, err);
      }
    }
  }
  record(measurement, results.get('flotilla') ?? [], results.get('dockerd') ?? []);
}

try {
  const start = (name: 'flotilla' | 'dockerd', suffix = '') =>
    startBenchEngine(name, {
      directory: `${work}/${name}${suffix}`,
      cacheDirectory,
      images: suffix === '' ? images : [],
    });

  if (only === undefined || 'start of the engine'.includes(only)) {
    const times = { flotilla: [] as number[], dockerd: [] as number[] };
    for (let round = 0; round < START_ROUNDS; round += 1) {
      for (const name of ['flotilla', 'dockerd'] as const) {
        await using engine = await start(name, `-start`);
        times[name].push(engine.startMs);
      }
    }
    record(
      {
        title: 'start of the engine to the first 200 of /containers/json',
        unit: 'ms',
        aim: { kind: 'at most', ratio: 2 },
      },
      times.flotilla,
      times.dockerd,
    );
  }

  await using flotilla = await start('flotilla');
  await using dockerd = await start('dockerd');
  const engines = [flotilla, dockerd];
  for (const { bench } of engines) {
    bench.cli(['pull', '-q', `${bench.registry}/busybox:latest`]);
    bench.cli(['tag', `${bench.registry}/busybox:latest`, 'busybox:latest']);
  }
  const wanted = (measurement: Measurement) => only === undefined || measurement.title.includes(only);
  for (const measurement of [
    ...memoryMeasurements,
    ...lifecycleMeasurements,
    ...imageMeasurements,
    ...streamMeasurements,
    ...queryMeasurements,
  ].filter(wanted)) {
    await runMeasurement(measurement, engines);
  }
  for (const { bench } of engines) {
    await removeLogContainers(bench);
    await removeQueryContainers(bench);
  }
  const report = renderReport(rows, {
    peerVersion: dockerd.version,
    storage: 'tmpfs',
    commit: currentCommit(root),
    loadBefore,
  });
  if (only === undefined || option('out') !== undefined) writeFileSync(out, report);
  console.log(report);
} finally {
  rmSync(work, { recursive: true, force: true });
}
