import { image } from '@flotilla/proto';
import type { StoreSummary } from '../check/check-store.js';
import type { StoreFinding, StoreFindingKind } from '../check/store-finding.js';

const kinds: Readonly<Record<StoreFindingKind, image.StoreFindingKind>> = {
  blobMissing: image.StoreFindingKind.BLOB_MISSING,
  blobCorrupt: image.StoreFindingKind.BLOB_CORRUPT,
  blobOrphan: image.StoreFindingKind.BLOB_ORPHAN,
  layerMissing: image.StoreFindingKind.LAYER_MISSING,
  layerRecord: image.StoreFindingKind.LAYER_RECORD,
  layerOrphan: image.StoreFindingKind.LAYER_ORPHAN,
  containerLayerMissing: image.StoreFindingKind.CONTAINER_LAYER_MISSING,
  containerLayerOrphan: image.StoreFindingKind.CONTAINER_LAYER_ORPHAN,
  referenceDangling: image.StoreFindingKind.REFERENCE_DANGLING,
  imageRecord: image.StoreFindingKind.IMAGE_RECORD,
  temporary: image.StoreFindingKind.TEMPORARY,
};

export const findingMessage = (finding: StoreFinding): image.CheckStoreResponse => ({
  event: {
    $case: 'finding',
    value: {
      kind: kinds[finding.kind],
      subject: finding.subject,
      message: finding.message,
      imageIds: [...finding.imageIds],
      repaired: finding.isRepaired,
    },
  },
});

export const summaryMessage = (summary: StoreSummary): image.CheckStoreResponse => ({
  event: {
    $case: 'summary',
    value: {
      images: BigInt(summary.images),
      references: BigInt(summary.references),
      blobs: BigInt(summary.blobs),
      blobBytes: BigInt(summary.blobBytes),
      layers: BigInt(summary.layers),
      containerLayers: BigInt(summary.containerLayers),
      quarantined: BigInt(summary.quarantined),
    },
  },
});
