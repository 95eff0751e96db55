import { rm } from 'node:fs/promises';
import { notFound } from '@flotilla/errors';
import { JsonReader, mediaTypes, parseDigest, parseImageConfig, renderRunConfig } from '@flotilla/oci';
import type { Reference, RunConfig } from '@flotilla/oci';
import type { CatalogChange, CatalogImage, Hold } from '../catalog/catalog.js';
import type { LayerRecord } from '../catalog/records.js';
import { imageTagged } from '../images/image-events.js';
import { applyChanges } from '../load/dockerfile-changes.js';
import type { LoadDeps } from '../load/load-images.js';
import { adoptCompressed, makeImageRecord } from '../load/store-image.js';
import { blobsOf } from '../pull/pull-image.js';
import type { ContainerReading, ContainerReaders } from './container-readers.js';
import { mergeRunConfig } from './merge-run-config.js';

export interface CommitDeps extends LoadDeps {
  readonly readers: ContainerReaders;
}

export interface CommitOptions {
  readonly containerId: string;
  readonly reference: Reference | undefined;
  readonly comment: string;
  readonly author: string;
  /** Dockerfile instructions. */
  readonly changes: readonly string[];
  /** What the user gives; undefined: nothing. */
  readonly config: RunConfig | undefined;
  /** The container's own. */
  readonly containerConfig: RunConfig;
}

/** The layer of a container without changes: a tar without members. */
const emptyDiffId = 'sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef';
const json = new JsonReader('image configuration');

/**
 * Make an image of what a container has changed, on top of its image; gives its id and the revision. Without changes it
 * has no further layer. The caller sees to it that nobody writes meanwhile.
 *
 * @throws EngineError `invalidArgument` for bad instructions, before anything is read; `notFound` for the container or
 * its image; `conflict` when the container is removed meanwhile.
 */
export async function commitContainer(
  deps: CommitDeps,
  options: CommitOptions,
  signal: AbortSignal,
  reply: (id: string) => NonNullable<CatalogChange['reply']>,
): Promise<{ id: string; revision: bigint }> {
  const { catalog, content, now } = deps;
  const run = mergeRunConfig(
    applyChanges(options.config ?? options.containerConfig, options.changes),
    options.containerConfig,
  );
  return deps.readers.read(options.containerId, signal, async (reading) => {
    const parent = catalog.get(reading.lease.imageId);
    if (parent === undefined) throw notFound(`No such image: ${reading.lease.imageId}`);
    const hold = catalog.hold();
    hold.layers(parent.record.layers.map(({ chainId }) => chainId));
    hold.blobs(blobsOf(parent.record).map(({ digest }) => digest));
    try {
      const layer = await readLayer(deps, parent, reading, hold);
      const created = now().toISOString();
      const configBytes = renderConfig(parent, run, layer?.record.diffId, options, created);
      const config = parseImageConfig(configBytes);
      const record = await makeImageRecord(
        deps,
        {
          configBytes,
          layers: [...parent.record.layers, ...(layer === undefined ? [] : [layer.record])],
          sizeBytes: parent.record.sizeBytes + (layer?.sizeBytes ?? 0),
          manifestBytes: undefined,
          manifestType: mediaTypes.ociManifest,
        },
        hold,
      );
      await content.settled(blobsOf(record).map(({ digest }) => digest));
      reading.signal.throwIfAborted();
      const tagged = options.reference === undefined ? [] : [options.reference];
      const revision = await catalog.commit({
        putImages: [{ ...record, parent: parent.record.id, lastTaggedAt: tagged.length === 0 ? '' : created }],
        name: tagged.map((reference) => ({ reference, imageId: record.id })),
        events: tagged.map((reference) => imageTagged(record.id, reference, config)),
        reply: reply(record.id),
      });
      return { id: record.id, revision };
    } finally {
      await hold.release();
    }
  });
}

async function readLayer(
  { content, layers }: CommitDeps,
  parent: CatalogImage,
  { tree, signal }: ContainerReading,
  hold: Hold,
): Promise<{ record: LayerRecord; sizeBytes: number } | undefined> {
  const targetPath = content.scratchPath();
  try {
    const ingested = await layers.ingestLayer({
      source: tree,
      targetPath,
      parentChainId: parent.record.layers.at(-1)?.chainId,
      claim: (chainId) => hold.layers([chainId]),
      signal,
    });
    // Nothing names the layer: it goes when the hold is released.
    if (ingested.diffId === emptyDiffId) return undefined;
    const blob = await adoptCompressed(content, targetPath, ingested, hold);
    const record = { diffId: parseDigest(ingested.diffId), chainId: parseDigest(ingested.chainId), blob };
    return { record, sizeBytes: Number(ingested.sizeBytes) };
  } finally {
    await rm(targetPath, { force: true });
  }
}

/** As dockerd's NewChildImage: the parent's platform and history, and the container's own configuration beside the image's. */
function renderConfig(
  { record, config }: CatalogImage,
  run: RunConfig,
  diffId: string | undefined,
  { containerId, containerConfig, comment, author }: CommitOptions,
  created: string,
): Buffer {
  const base = json.parse(record.configJson);
  const kept = ['architecture', 'variant', 'os', 'os.version', 'os.features'].filter((key) => Object.hasOwn(base, key));
  const authored = author === '' ? {} : { author };
  const step = {
    created,
    ...authored,
    created_by: (containerConfig.cmd ?? []).join(' '),
    ...(comment === '' ? {} : { comment }),
    ...(diffId === undefined ? { empty_layer: true } : {}),
  };
  return Buffer.from(
    JSON.stringify({
      ...Object.fromEntries(kept.map((key) => [key, base[key]])),
      created,
      ...authored,
      ...(comment === '' ? {} : { comment }),
      container: containerId,
      container_config: renderRunConfig(containerConfig),
      config: renderRunConfig(run),
      rootfs: { type: 'layers', diff_ids: [...config.diffIds, ...(diffId === undefined ? [] : [diffId])] },
      history: [...json.objects(base, 'history'), step],
    }),
  );
}
