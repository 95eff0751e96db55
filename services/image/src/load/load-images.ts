import { invalidArgument } from '@flotilla/errors';
import { familiarString, mediaTypes, parseImageConfig, sha256Of, shortId } from '@flotilla/oci';
import type { Platform } from '@flotilla/oci';
import type { Catalog, CatalogChange, Hold } from '../catalog/catalog.js';
import type { LayerRecord } from '../catalog/records.js';
import { imageLoaded } from '../images/image-events.js';
import { blobsOf } from '../pull/pull-image.js';
import type { ProgressLog } from '../pull/progress-log.js';
import { readArchive } from './archive-contents.js';
import { openArchive } from './archive-source.js';
import type { UploadData } from './archive-source.js';
import type { ArchivedImage } from './archive-contents.js';
import { ImageArchive } from './image-archive.js';
import type { ArchiveFile } from './image-archive.js';
import { makeImageRecord, placesOf, storeLayer } from './store-image.js';
import type { StoreDeps } from './store-image.js';

export interface LoadDeps extends StoreDeps {
  readonly catalog: Catalog;
}

export interface LoadOptions {
  /** No bars, only what was loaded. */
  readonly quiet: boolean;
  readonly platforms: readonly Platform[];
}

/**
 * Load every image of an archive. Each becomes visible when all of it is there; one that fails ends the load, and those
 * before it stay, as with dockerd.
 */
export async function loadImages(
  deps: LoadDeps,
  data: UploadData,
  options: LoadOptions,
  log: ProgressLog,
  signal: AbortSignal,
): Promise<bigint> {
  const { catalog, content, layers } = deps;
  const present = presentLayers(deps);
  await using archive = new ImageArchive({
    scratchPath: () => content.scratchPath(),
    stage: (layer, targetPath) => layers.stageLayer({ source: layer, targetPath, signal }),
    isKnown: (diffId) => present.has(diffId),
  });
  await archive.receive(await openArchive(data));
  signal.throwIfAborted();
  let revision = catalog.revision;
  // One for all: a file of the archive may be a layer of several images, and is taken by the first.
  const hold = catalog.hold();
  try {
    for (const image of await readArchive(archive, options.platforms)) {
      revision = await loadImage(deps, archive, image, options.quiet ? undefined : log, log, hold, signal);
    }
  } finally {
    await hold.release();
  }
  return revision;
}

/** DiffIDs of layers that {@link reuseLayer} would take. */
function presentLayers({ catalog, content, layers }: LoadDeps): Set<string> {
  const present = new Set<string>();
  for (const { record } of catalog.all()) {
    for (const { diffId, chainId, blob } of record.layers) {
      if (layers.has(chainId) && content.has(blob.digest)) present.add(diffId);
    }
  }
  return present;
}

async function loadImage(
  deps: LoadDeps,
  archive: ImageArchive,
  image: ArchivedImage,
  bars: ProgressLog | undefined,
  log: ProgressLog,
  hold: Hold,
  signal: AbortSignal,
): Promise<bigint> {
  const { content } = deps;
  const config = parseImageConfig(image.configBytes);
  const expected = config.diffIds.length;
  if (image.layerNames.length !== expected) {
    throw invalidArgument(
      `invalid manifest, layers length mismatch: expected ${expected}, got ${image.layerNames.length}`,
    );
  }
  if (config.platform.os !== '' && config.platform.os !== 'linux') {
    throw invalidArgument(`cannot load ${config.platform.os} image on linux`);
  }
  const known = layersByChain(deps.catalog);
  const stop = new AbortController();
  const stored = await Promise.allSettled(
    placesOf(config.diffIds).map(async (place, at) => {
      try {
        const name = image.layerNames[at] ?? '';
        const file = archive.find(name);
        if (file === undefined)
          throw invalidArgument(`invalid archive: does not contain ${JSON.stringify(name.slice(0, 200))}`);
        const reused = reuseLayer(deps, file, known.get(place.chainId), hold);
        if (reused !== undefined) return reused;
        const onProgress = (readBytes: number): void =>
          bars?.detail(shortId(place.diffId), 'Loading layer', readBytes, file.size);
        onProgress(0);
        return await storeLayer(deps, file, place, hold, AbortSignal.any([signal, stop.signal]), onProgress);
      } catch (error) {
        stop.abort(error);
        throw error;
      }
    }),
  );
  signal.throwIfAborted();
  const layers = stored.map((result) => {
    if (result.status === 'rejected') throw stop.signal.reason;
    return result.value;
  });
  const kept = fitsTo(
    image,
    layers.map(({ record }) => record),
  )
    ? image.manifest
    : undefined;
  const record = await makeImageRecord(
    deps,
    {
      configBytes: image.configBytes,
      layers: layers.map((layer, at) => {
        const stated = kept?.manifest.layers[at];
        return stated === undefined
          ? layer.record
          : { ...layer.record, blob: { ...layer.record.blob, mediaType: stated.mediaType } };
      }),
      sizeBytes: layers.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0),
      manifestBytes: kept?.bytes,
      manifestType: kept?.manifest.mediaType ?? mediaTypes.ociManifest,
    },
    hold,
  );
  await content.settled(blobsOf(record).map(({ digest }) => digest));
  signal.throwIfAborted();
  return commitLoaded(deps, record, config, image, log);
}

function layersByChain(catalog: Catalog): Map<string, LayerRecord> {
  return new Map(catalog.all().flatMap(({ record }) => record.layers.map((layer) => [layer.chainId, layer])));
}

/** A plain layer that is in the stores already is not compressed again; a compressed one is kept, as its manifest names it. */
function reuseLayer(
  { layers, content }: LoadDeps,
  { compression }: ArchiveFile,
  known: LayerRecord | undefined,
  hold: Hold,
): { record: LayerRecord; sizeBytes: number } | undefined {
  if (compression !== 'none' || known === undefined) return undefined;
  if (!layers.has(known.chainId) || !content.has(known.blob.digest)) return undefined;
  hold.layers([known.chainId]);
  hold.blobs([known.blob.digest]);
  return { record: known, sizeBytes: Number(layers.sizeOf(known.chainId)) };
}

/** A manifest names blobs: it is kept only if they are those that were stored. */
function fitsTo({ manifest, configBytes }: ArchivedImage, layers: readonly LayerRecord[]): boolean {
  return (
    manifest !== undefined &&
    manifest.manifest.config.digest === sha256Of(configBytes) &&
    manifest.manifest.layers.length === layers.length &&
    manifest.manifest.layers.every(({ digest }, at) => digest === layers[at]?.blob.digest)
  );
}

async function commitLoaded(
  { catalog, content, now }: LoadDeps,
  record: Awaited<ReturnType<typeof makeImageRecord>>,
  config: ReturnType<typeof parseImageConfig>,
  { names }: ArchivedImage,
  log: ProgressLog,
): Promise<bigint> {
  for (const name of names) {
    const before = catalog.named(name);
    if (before !== undefined && before !== record.id) {
      log.push({
        status: '',
        stream: `The image ${familiarString(name)} already exists, renaming the old one with ID ${before} to empty string\n`,
      });
    }
  }
  const lastTaggedAt = names.length === 0 ? '' : now().toISOString();
  const present = catalog.get(record.id)?.record;
  // One that has lost a blob is replaced by what was loaded.
  const isWhole = present !== undefined && blobsOf(present).every(({ digest }) => content.has(digest));
  const known = isWhole ? present : undefined;
  const change: CatalogChange = {
    putImages: [{ ...(known ?? record), lastTaggedAt: lastTaggedAt || (present?.lastTaggedAt ?? '') }],
    name: names.map((reference) => ({ reference, imageId: record.id })),
    events: [imageLoaded(record.id, config)],
  };
  const revision = await catalog.commit(change);
  for (const name of names) log.push({ status: '', stream: `Loaded image: ${familiarString(name)}\n` });
  if (names.length === 0) log.push({ status: '', stream: `Loaded image ID: ${record.id}\n` });
  return revision;
}
