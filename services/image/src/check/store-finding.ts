import type { Digest } from '@flotilla/oci';
import type { Catalog } from '../catalog/catalog.js';
import type { ContainerLayers } from '../containers/container-layers.js';
import type { ContentStore } from '../content/content-store.js';
import type { LayerStore } from '../layers/index.js';

export type StoreFindingKind =
  | 'blobMissing'
  | 'blobCorrupt'
  | 'blobOrphan'
  | 'layerMissing'
  | 'layerRecord'
  | 'layerOrphan'
  | 'containerLayerMissing'
  | 'containerLayerOrphan'
  | 'referenceDangling'
  | 'imageRecord'
  | 'temporary';

/** Something in the store that is not as the records say. */
export interface StoreFinding {
  readonly kind: StoreFindingKind;
  /** Digest, chain id, container id, reference or file. */
  readonly subject: string;
  readonly message: string;
  /** Images that need the subject. */
  readonly imageIds: readonly Digest[];
  /** Nothing is left to do. */
  readonly isRepaired: boolean;
}

export interface StoreCheckDeps {
  readonly catalog: Catalog;
  readonly content: ContentStore;
  readonly layers: LayerStore;
  readonly containers: ContainerLayers;
  /** Tells registry-proxy, whose cache may share the file. */
  readonly distrust: (digest: Digest) => Promise<void>;
}

export interface StoreCheckOptions {
  readonly repair: boolean;
  /** Nothing else runs: whatever is temporary was left behind. */
  readonly idle: boolean;
}
