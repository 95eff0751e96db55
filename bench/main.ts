import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { loadavg } from 'node:os';
import { join } from 'node:path';
import { busyboxImage, debianImage } from '@flotilla/testkit';
import { startBenchEngine, type StartedEngine } from './engines.js';
import { transferCorpus } from './corpus.js';
import { composeMeasurements } from './measurements/compose.js';
import { imageMeasurements, removeImagesAndChanges } from './measurements/images.js';
import { lifecycleMeasurements, removeIdleContainers } from './measurements/lifecycle.js';
import { memoryMeasurements } from './measurements/memory.js';
import { networkMeasurements, removeNetworkContainers } from './measurements/networks.js';
import { queryMeasurements, removeQueryContainers } from './measurements/queries.js';
import { restartMeasurements } from './measurements/restarts.js';
import { removeLogContainers, streamMeasurements } from './measurements/streams.js';
import type { BenchEngine, Measurement } from './measurement.js';
import { currentCommit, renderReport, type Row } from './report.js';

// Usage: npm run bench [-- PART ...] [-- --only WORD] [-- --out FILE]
const root = process.cwd();
const option = (name: string): string | undefined => {
  const at = process.argv.indexOf(`--${name}`);
  return at < 0 ? undefined : process.argv[at + 1];
};
const only = option('only');
const parts = {
  start: [],
  memory: memoryMeasurements,
  lifecycle: lifecycleMeasurements,
  images: imageMeasurements,
  streams: streamMeasurements,
  queries: queryMeasurements,
  restarts: restartMeasurements,
  networks: networkMeasurements,
  compose: composeMeasurements,
};
type Part = keyof typeof parts;
const isPart = (word: string): word is Part => Object.hasOwn(parts, word);
const words = process.argv.slice(2).filter((word, at, all) => !/^--/.test(word) && !/^--/.test(all[at - 1] ?? ''));
const unknown = words.find((word) => !isPart(word));
if (unknown !== undefined) throw new Error(`no such part: ${unknown}; there are ${Object.keys(parts).join(', ')}`);
const chosen = words.length === 0 ? (Object.keys(parts) as Part[]) : words.filter(isPart);
const out = option('out') ?? join(root, 'bench/RESULTS.md');
const START_ROUNDS = 5;

const loadBefore = loadavg()[0] ?? 0;
const cacheDirectory = join(root, '.cache');
mkdirSync(cacheDirectory, { recursive: true });
const work = mkdtempSync('/dev/shm/flotilla-bench-');
const images = [{ image: busyboxImage(work), repository: 'busybox', tag: 'latest' }];
if (chosen.includes('images')) {
  const { layered, large } = transferCorpus(cacheDirectory);
  images.push(
    { image: debianImage(cacheDirectory), repository: 'debian', tag: 'bookworm' },
    { image: layered, repository: 'layered', tag: 'latest' },
    { image: large, repository: 'large', tag: 'latest' },
  );
}
const rows: Row[] = [];
const record = (measurement: Row['measurement'], flotilla: number[], dockerd: number[], podman?: number[]): void => {
  rows.push({ measurement, flotilla, dockerd, ...(podman === undefined ? {} : { podman }) });
  const listed = (values: readonly number[]): string => values.map((value) => value.toFixed(1)).join(' ');
  const beside = podman === undefined ? '' : ` | podman ${listed(podman)}`;
  console.log(
    `${measurement.title}: flotilla ${listed(flotilla)} | dockerd ${listed(dockerd)}${beside} ${measurement.unit}`,
  );
};

/** Whether an engine refused what it does not do: a 501, or the CLI's words for it. */
const isNotBuilt = (err: unknown): boolean => /\b501\b|not (?:built|supported|implemented)/i.test(String(err));

async function runMeasurement(measurement: Measurement, all: readonly StartedEngine[]): Promise<void> {
  const isAsked = ({ bench }: StartedEngine): boolean => bench.name !== 'podman' || measurement.withPodman === true;
  const engines = all.filter(isAsked);
  const results = new Map<string, number[]>([
    ['flotilla', []],
    ['dockerd', []],
    ['podman', []],
  ]);
  const failed = new Set<string>();
  const attempt = async (name: string, action: () => Promise<void>): Promise<void> => {
    if (failed.has(name)) return;
    try {
      await action();
    } catch (err) {
      failed.add(name);
      console.error(
        `${measurement.title} on ${name}: ${isNotBuilt(err) ? 'not built yet' : ''}`,
        isNotBuilt(err) ? '' : err,
      );
    }
  };
  for (const { bench } of engines) {
    await attempt(bench.name, async () => {
      await measurement.prepare?.(bench);
    });
  }
  for (let round = 0; round < measurement.rounds; round += 1) {
    for (const { bench } of engines) {
      await attempt(bench.name, async () => {
        const value = await measurement.measure(bench);
        if (value !== undefined) results.get(bench.name)?.push(value);
        await measurement.cleanUp?.(bench);
      });
    }
  }
  const podman = engines.some(({ bench }) => bench.name === 'podman') ? results.get('podman') : undefined;
  record(measurement, results.get('flotilla') ?? [], results.get('dockerd') ?? [], podman);
}

try {
  const start = (name: BenchEngine['name'], suffix = '') =>
    startBenchEngine(name, {
      directory: `${work}/${name}${suffix}`,
      cacheDirectory,
      images: suffix === '' ? images : [],
    });

  if (chosen.includes('start') && (only === undefined || 'start of the engine'.includes(only))) {
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
  const wanted = (measurement: Measurement) => only === undefined || measurement.title.includes(only);
  const isBeside = chosen.some((part) => parts[part].some((it: Measurement) => it.withPodman === true && wanted(it)));
  await using podman = isBeside ? await start('podman') : undefined;
  const engines = [flotilla, dockerd];
  for (const { bench } of engines) {
    bench.cli(['pull', '-q', `${bench.registry}/busybox:latest`]);
    bench.cli(['tag', `${bench.registry}/busybox:latest`, 'busybox:latest']);
  }
  for (const part of chosen) {
    const list: readonly Measurement[] = parts[part];
    for (const measurement of list.filter(wanted))
      await runMeasurement(measurement, podman === undefined ? engines : [...engines, podman]);
    for (const { bench } of engines) {
      await removeIdleContainers(bench);
      await removeLogContainers(bench);
      await removeQueryContainers(bench);
      await removeImagesAndChanges(bench);
      await removeNetworkContainers(bench);
    }
  }
  const report = renderReport(rows, {
    peerVersion: dockerd.version,
    podmanVersion: podman?.version,
    storage: 'tmpfs',
    commit: currentCommit(root),
    loadBefore,
  });
  if ((only === undefined && words.length === 0) || option('out') !== undefined) writeFileSync(out, report);
  console.log(report);
} finally {
  rmSync(work, { recursive: true, force: true });
}
