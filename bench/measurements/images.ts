import { statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipLayer, makeImage, plainTar } from '@flotilla/testkit';
import { requestsPerSecond } from '../http-client.js';
import { elapsedMs, type BenchEngine, type Measurement } from '../measurement.js';

const MANY = 1000;
const PARALLEL_PULLS = 50;
const CHANGED = 'bench-changed';
const done = new Set<string>();

/** Run something once per engine, however many measurements need it. */
const once = (what: string, action: (engine: BenchEngine) => unknown) => async (engine: BenchEngine) => {
  const key = `${what} ${engine.name}`;
  if (done.has(key)) return;
  done.add(key);
  await action(engine);
};

const layered = ({ registry }: BenchEngine) => `${registry}/layered:latest`;
const archivePath = ({ scratch }: BenchEngine) => join(scratch, 'layered.tar');

const haveImage = once('layered', (engine) => engine.cli(['pull', '-q', layered(engine)]));

/** A docker-archive of the layered image with plain layers, as dockerd's save has always written it. */
const haveArchive = once('archive', (engine) =>
  engine.shell(
    `skopeo copy -q --src-tls-verify=false docker://${layered(engine)} docker-archive:${archivePath(engine)}:loaded:latest`,
  ),
);

const haveManyImages = once('many images', (engine) => {
  const layer = gzipLayer(plainTar([['file', Buffer.from('content')]]));
  const images = Array.from({ length: MANY }, (_, at) => makeImage([layer], { Labels: { number: String(at) } }));
  const files: [string, Buffer][] = [['layer.tar', layer.tar]];
  for (const { id, configJson } of images) files.push([`${id.slice(7)}.json`, configJson]);
  const manifest = images.map(({ id }, at) => ({
    Config: `${id.slice(7)}.json`,
    RepoTags: [`many:${at}`],
    Layers: ['layer.tar'],
  }));
  files.push(['manifest.json', Buffer.from(JSON.stringify(manifest))]);
  const path = join(engine.scratch, 'many.tar');
  writeFileSync(path, plainTar(files));
  engine.cli(['load', '-q', '-i', path]);
});

/** A stopped container that has written about 200 MB of a Debian's files. */
const haveChanges = once('changes', (engine) => {
  engine.cli(['pull', '-q', `${engine.registry}/debian:bookworm`]);
  engine.cli([
    'run',
    '--network',
    'none',
    '--name',
    CHANGED,
    `${engine.registry}/debian:bookworm`,
    'cp',
    '-a',
    '/usr',
    '/copy',
  ]);
});

const pulls = (title: string, reference: string, ratio: number, rounds: number): Measurement => ({
  title,
  unit: 'ms',
  rounds,
  aim: { kind: 'at most', ratio },
  withPodman: true,
  measure: (engine) => elapsedMs(() => engine.cli(['pull', '-q', `${engine.registry}/${reference}`])),
  cleanUp(engine) {
    engine.cli(['rmi', `${engine.registry}/${reference}`]);
    engine.forgetDownloads();
  },
});

const pushes = (title: string, reference: string, rounds: number): Measurement => ({
  title,
  unit: 'ms',
  rounds,
  aim: { kind: 'at most', ratio: 0.4 },
  withPodman: true,
  prepare: once(`push ${reference}`, (engine) => {
    engine.cli(['pull', '-q', `${engine.registry}/${reference}`]);
    engine.cli(['tag', `${engine.registry}/${reference}`, `${engine.uploads.prefix}/${reference}`]);
  }),
  measure: (engine) => elapsedMs(() => engine.shell(`docker push -q ${engine.uploads.prefix}/${reference}`)),
  cleanUp: (engine) => engine.uploads.clear(),
});

const downloads = new Map<string, number>();

/** How long does it take to bring, send and keep images? The last three leave their images behind. */
export const imageMeasurements: readonly Measurement[] = [
  pulls('pull of the Debian image (3 layers, about 10,000 files) from a loopback registry', 'debian:bookworm', 0.35, 5),
  pulls('pull of 300 MiB in 8 layers', 'layered:latest', 0.35, 5),
  pulls('pull of one layer of 500 MiB', 'large:latest', 0.35, 3),
  {
    title: `${PARALLEL_PULLS} pulls of one image of 300 MiB at once`,
    unit: 'ms',
    rounds: 3,
    aim: { kind: 'at most', ratio: 0.35 },
    async measure(engine) {
      const before = engine.blobDownloads();
      const ms = await elapsedMs(() =>
        Promise.all(
          Array.from({ length: PARALLEL_PULLS }, () =>
            engine.api.call('POST', `/images/create?fromImage=${encodeURIComponent(layered(engine))}`, [200]),
          ),
        ),
      );
      downloads.set(engine.name, engine.blobDownloads() - before);
      return ms;
    },
    cleanUp(engine) {
      engine.cli(['rmi', layered(engine)]);
      engine.forgetDownloads();
    },
  },
  {
    title: `blobs that the registry sent for those ${PARALLEL_PULLS} pulls (the image has 9)`,
    unit: 'requests',
    rounds: 1,
    measure: ({ name }) => downloads.get(name),
  },
  pushes('push of 300 MiB in 8 layers', 'layered:latest', 3),
  pushes('push of one layer of 500 MiB', 'large:latest', 3),
  {
    title: 'save of 300 MiB in 8 layers',
    unit: 'ms',
    rounds: 3,
    aim: { kind: 'at most', ratio: 0.25 },
    withPodman: true,
    prepare: haveImage,
    measure: async (engine) => {
      const target = join(engine.scratch, 'saved.tar');
      const ms = await elapsedMs(() => engine.shell(`docker save -o ${target} ${layered(engine)}`));
      if (statSync(target).size < 100_000_000) throw new Error('the archive lacks its layers');
      return ms;
    },
    cleanUp: (engine) => engine.shell(`rm -f ${join(engine.scratch, 'saved.tar')}`),
  },
  {
    title: 'load of 300 MiB in 8 layers',
    unit: 'ms',
    rounds: 3,
    aim: { kind: 'at most', ratio: 0.5 },
    withPodman: true,
    prepare: async (engine) => {
      await haveArchive(engine);
      // Nothing of it may be there already.
      engine.shell(`docker images -q --no-trunc --filter reference='*/layered' | sort -u | xargs -r docker rmi -f`);
    },
    measure: (engine) => elapsedMs(() => engine.cli(['load', '-q', '-i', archivePath(engine)])),
    cleanUp: (engine) => engine.cli(['rmi', 'loaded:latest']),
  },
  {
    title: 'commit of a container that changed 200 MB',
    unit: 'ms',
    rounds: 3,
    withPodman: true,
    prepare: haveChanges,
    measure: (engine) => elapsedMs(() => engine.shell(`docker commit ${CHANGED} bench:commit`)),
    cleanUp: (engine) => engine.cli(['rmi', 'bench:commit']),
  },
  {
    title: `\`GET /images/json\` with ${MANY} images, 1 connection`,
    unit: 'req/s',
    rounds: 3,
    prepare: haveManyImages,
    measure: (engine) => requestsPerSecond(engine.api.socket, '/v1.41/images/json', 1, 2),
  },
  {
    title: `\`GET /system/df\` with ${MANY} images`,
    unit: 'ms',
    rounds: 3,
    aim: { kind: 'at most', ratio: 1 },
    prepare: haveManyImages,
    measure: (engine) => elapsedMs(() => engine.api.call('GET', '/system/df', [200])),
  },
];

/** Remove what the measurements of images leave. */
export async function removeImagesAndChanges({ api }: BenchEngine): Promise<void> {
  await api.call('DELETE', `/containers/${CHANGED}?force=1&v=1`, [204, 404]);
}
