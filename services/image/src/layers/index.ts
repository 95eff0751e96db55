export { chainIdOf } from './layer-paths.js';
export { LayerStore } from './layer-store.js';
export type {
  LayerFault,
  LayerInput,
  LayerStoreOptions,
  PlainLayerInput,
  StagedLayer,
  WholeBlob,
} from './layer-store.js';
export type { AppliedLayer } from './shared-apply.js';
export type { ContainerLayer } from './writable-layers.js';
export type { LayerCompression } from './codec-process.js';
export type { ArrivingPart, CompressedLayer, PlainLayer } from './ingest-layer.js';
export type { LayerTree } from './layer-tasks.js';
export { chooseStorageDriver } from './storage-driver.js';
export type { StorageDriver } from './storage-driver.js';
export { BlobUnfinished, GrowingBlob } from './growing-blob.js';
