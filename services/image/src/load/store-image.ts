import { rm } from 'node:fs/promises';
import { invalidArgument } from '@flotilla/errors';
import { chainIds as chainIdsOf, mediaTypes, parseDigest, sha256Of } from '@flotilla/oci';
import type { Digest } from '@flotilla/oci';
import type { Hold } from '../catalog/catalog.js';
import type { BlobRecord, ImageRecord, LayerRecord } from '../catalog/records.js';
import type { ContentStore } from '../content/content-store.js';
import type { LayerCompression, LayerStore, StagedLayer } from '../layers/index.js';

export interface StoreDeps {
  readonly content: ContentStore;
  readonly layers: LayerStore;
  readonly now: () => Date;
}

/** A layer on the disk, compressed or plain. */
export interface LayerFile {
  readonly path: string;
  readonly size: number;
  readonly compression: LayerCompression;
  /** Of the file; empty if unknown, then it is plain. */
  readonly digest: Digest | '';
  /** What it was made into while it came; then the file is what it was compressed into. */
  readonly arrived?: { readonly layer: StagedLayer } | { readonly failure: unknown } | undefined;
}

/**
 * Bring a layer from a file into the stores: a compressed file is kept as it is, a plain one compressed once. The file
 * is taken over or left to its owner.
 *
 * @throws EngineError `dataLoss` when the content is not that of the DiffID.
 */
export async function storeLayer(
  { content, layers }: StoreDeps,
  file: LayerFile,
  layer: { readonly diffId: Digest; readonly chainId: Digest; readonly parentChainId: Digest | undefined },
  hold: Hold,
  signal: AbortSignal,
  onProgress: (readBytes: number) => void,
): Promise<{ record: LayerRecord; sizeBytes: number }> {
  const { arrived } = file;
  hold.layers([layer.chainId]);
  const apply = (blobPath: string, compression: LayerCompression): Promise<{ sizeBytes: bigint }> =>
    layers.applyLayer({
      blobPath,
      compression,
      ...(layer.parentChainId === undefined ? {} : { parentChainId: layer.parentChainId }),
      diffId: layer.diffId,
      signal,
      onProgress,
    });
  if (arrived !== undefined) {
    if ('failure' in arrived) throw arrived.failure;
    const staged = arrived.layer;
    const blob = await adoptCompressed(content, file.path, staged.compressed, hold);
    // It has one place; a layer that occurs several times is unpacked again for the others.
    const { sizeBytes } = staged.isPlaced
      ? await apply(content.path(blob.digest), 'gzip')
      : await staged.place({ ...layer, claim: () => undefined });
    onProgress(file.size);
    return { record: { diffId: layer.diffId, chainId: layer.chainId, blob }, sizeBytes: Number(sizeBytes) };
  }
  const { compression } = file;
  if (compression !== 'none' && file.digest !== '') {
    hold.blobs([file.digest]);
    await content.adopt(file.digest, file.path);
    const { sizeBytes } = await apply(content.path(file.digest), compression);
    const mediaType = compression === 'gzip' ? mediaTypes.ociLayerGzip : mediaTypes.ociLayerZstd;
    const blob: BlobRecord = { digest: file.digest, size: content.sizeOf(file.digest) ?? file.size, mediaType };
    return { record: { ...layer, blob }, sizeBytes: Number(sizeBytes) };
  }
  const targetPath = content.scratchPath();
  try {
    const ingested = await layers.ingestLayer({
      source: file.path,
      targetPath,
      parentChainId: layer.parentChainId,
      diffId: layer.diffId,
      claim: () => undefined,
      signal,
      onProgress,
    });
    const blob = await adoptCompressed(content, targetPath, ingested, hold);
    return { record: { diffId: layer.diffId, chainId: layer.chainId, blob }, sizeBytes: Number(ingested.sizeBytes) };
  } finally {
    await rm(targetPath, { force: true });
  }
}

/** A blob that `ingestLayer` made becomes content. */
export async function adoptCompressed(
  content: ContentStore,
  path: string,
  compressed: { readonly digest: string; readonly compressedBytes: number },
  hold: Hold,
): Promise<BlobRecord> {
  const digest = parseDigest(compressed.digest);
  hold.blobs([digest]);
  await content.adopt(digest, path);
  return { digest, size: compressed.compressedBytes, mediaType: mediaTypes.ociLayerGzip };
}

/** The record of an image whose layers are in the stores; a manifest is made if it has none that fits. */
export async function makeImageRecord(
  { content, now }: StoreDeps,
  image: {
    readonly configBytes: Buffer;
    readonly layers: readonly LayerRecord[];
    readonly sizeBytes: number;
    readonly manifestBytes: Buffer | undefined;
    readonly manifestType: string;
  },
  hold: Hold,
): Promise<ImageRecord> {
  const id = sha256Of(image.configBytes);
  const manifestBytes =
    image.manifestBytes ??
    Buffer.from(
      JSON.stringify({
        schemaVersion: 2,
        mediaType: mediaTypes.ociManifest,
        config: { mediaType: mediaTypes.ociConfig, digest: id, size: image.configBytes.length },
        layers: image.layers.map(({ blob: { mediaType, digest, size } }) => ({ mediaType, digest, size })),
      }),
    );
  const manifestDigest = sha256Of(manifestBytes);
  hold.blobs([id, manifestDigest]);
  await content.put(image.configBytes);
  await content.put(manifestBytes);
  return {
    id,
    configJson: image.configBytes.toString('utf8'),
    manifest: { digest: manifestDigest, size: manifestBytes.length, mediaType: image.manifestType },
    index: null,
    layers: image.layers,
    sizeBytes: image.sizeBytes,
    parent: '',
    addedAt: now().toISOString(),
    lastTaggedAt: '',
  };
}

/** DiffIDs with their places in the stack. */
export function placesOf(
  diffIds: readonly Digest[],
): { diffId: Digest; chainId: Digest; parentChainId: Digest | undefined }[] {
  const chain = chainIdsOf(diffIds);
  return diffIds.map((diffId, at) => {
    const chainId = chain[at];
    if (chainId === undefined) throw invalidArgument('a layer without chain id');
    return { diffId, chainId, parentChainId: chain[at - 1] };
  });
}
