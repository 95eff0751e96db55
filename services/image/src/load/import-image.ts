import { rm, writeFile } from 'node:fs/promises';
import { emptyRunConfig, hostPlatform, parseDigest, parseImageConfig, renderRunConfig } from '@flotilla/oci';
import type { Platform, Reference } from '@flotilla/oci';
import { imageImported, imageTagged } from '../images/image-events.js';
import type { AppliedLayer, CompressedLayer, LayerStore, PlainLayerInput, StagedLayer } from '../layers/index.js';
import { blobsOf } from '../pull/pull-image.js';
import { openArchive } from './archive-source.js';
import type { ArchiveSource, UploadData } from './archive-source.js';
import { applyChanges } from './dockerfile-changes.js';
import type { LoadDeps } from './load-images.js';
import { adoptCompressed, makeImageRecord } from './store-image.js';
import type { StoreDeps } from './store-image.js';

export interface ImportOptions {
  readonly reference: Reference | undefined;
  readonly message: string;
  readonly changes: readonly string[];
  readonly platform: Platform | undefined;
  /** Where it came from; "-" for a body. */
  readonly source: string;
}

/** Make an image of one layer from a root file system tar, plain or compressed; gives its id and the revision. */
export async function importImage(
  { catalog, content, layers, now }: LoadDeps,
  data: UploadData,
  options: ImportOptions,
  signal: AbortSignal,
  reply: (id: string) => { readonly requestId: string; readonly encode: (revision: bigint) => Uint8Array },
): Promise<{ id: string; revision: bigint }> {
  // Bad instructions are told before a large body is read.
  const run = applyChanges(emptyRunConfig, options.changes);
  const hold = catalog.hold();
  const targetPath = content.scratchPath();
  try {
    const claim = (chainId: string): void => hold.layers([chainId]);
    const source = await openArchive(data);
    const ingested = await receiveLayer({ content, layers, now }, source, { targetPath, claim, signal });
    const blob = await adoptCompressed(content, targetPath, ingested, hold);
    const diffId = parseDigest(ingested.diffId);
    const { sizeBytes } = ingested;
    const created = now().toISOString();
    const { os, architecture, variant } = options.platform ?? hostPlatform();
    const configBytes = Buffer.from(
      JSON.stringify({
        architecture,
        ...(variant === '' ? {} : { variant }),
        os,
        created,
        ...(options.message === '' ? {} : { comment: options.message }),
        config: renderRunConfig(run),
        rootfs: { type: 'layers', diff_ids: [diffId] },
        history: [{ created, comment: options.message === '' ? `Imported from ${options.source}` : options.message }],
      }),
    );
    const config = parseImageConfig(configBytes);
    const record = await makeImageRecord(
      { content, layers, now },
      {
        configBytes,
        layers: [{ diffId, chainId: diffId, blob }],
        sizeBytes: Number(sizeBytes),
        manifestBytes: undefined,
        manifestType: 'application/vnd.oci.image.manifest.v1+json',
      },
      hold,
    );
    await content.settled(blobsOf(record).map(({ digest }) => digest));
    signal.throwIfAborted();
    const { reference } = options;
    const tagged = reference === undefined ? [] : [reference];
    const revision = await catalog.commit({
      putImages: [{ ...record, lastTaggedAt: reference === undefined ? '' : created }],
      name: tagged.map((name) => ({ reference: name, imageId: record.id })),
      events: [...tagged.map((name) => imageTagged(record.id, name, config)), imageImported(record.id, config)],
      reply: reply(record.id),
    });
    return { id: record.id, revision };
  } finally {
    await rm(targetPath, { force: true });
    await hold.release();
  }
}

/**
 * Unpack and compress a layer while it comes, or from a file if too many come already: a client that sends nothing must not
 * keep those waiting who have everything.
 */
async function receiveLayer(
  { content, layers }: StoreDeps,
  source: ArchiveSource,
  { targetPath, claim, signal }: Omit<PlainLayerInput, 'source'> & { signal: AbortSignal },
): Promise<CompressedLayer & AppliedLayer> {
  const staged = await stageArriving(layers, source, targetPath, signal);
  if (staged !== undefined) {
    await using layer = staged;
    return { ...layer.compressed, ...(await layer.place({ claim })) };
  }
  const path = content.scratchPath();
  try {
    await writeFile(path, source.take(), { flag: 'wx', mode: 0o600, signal });
    return await layers.ingestLayer({ source: path, targetPath, claim, signal });
  } finally {
    await rm(path, { force: true });
  }
}

async function stageArriving(
  layers: LayerStore,
  source: ArchiveSource,
  targetPath: string,
  signal: AbortSignal,
): Promise<StagedLayer | undefined> {
  if (!source.isDirect) return layers.stageLayer({ source: source.take(), targetPath, signal });
  const lent = await source.lend(0, Number.POSITIVE_INFINITY, async (part) => {
    const layer = await layers.stageLayer({ source: part, targetPath, signal });
    return layer === undefined ? undefined : { layer, readBytes: layer.compressed.uncompressedBytes };
  });
  try {
    // Nothing is left but the word that it was all.
    if (lent !== undefined) for await (const _ of source.take());
  } catch (error) {
    await lent?.layer[Symbol.asyncDispose]();
    throw error;
  }
  return lent?.layer;
}
