import type { Digest } from '@flotilla/oci';
import type { LayerRecord } from '../catalog/records.js';
import type { ContentStore } from '../content/content-store.js';
import type { LayerStore } from '../layers/index.js';
import { compressionOfFile } from '../layers/blob-compression.js';

/** Unpack a lost layer again from its blob. @throws EngineError `notFound` without the blob, `dataLoss` if it is corrupt. */
export async function restoreLayer(
  { layers, content }: { readonly layers: LayerStore; readonly content: ContentStore },
  { diffId, blob }: LayerRecord,
  parentChainId: Digest | undefined,
  signal?: AbortSignal,
): Promise<void> {
  const blobPath = content.existingPath(blob.digest);
  await layers.applyLayer({
    blobPath,
    compression: await compressionOfFile(blobPath),
    ...(parentChainId === undefined ? {} : { parentChainId }),
    diffId,
    ...(signal === undefined ? {} : { signal }),
  });
}
