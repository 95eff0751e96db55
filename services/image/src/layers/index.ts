export { chainIdOf } from './layer-paths.js';
export { LayerStore } from './layer-store.js';
export type { AppliedLayer, ContainerLayer, LayerFault, LayerInput, LayerStoreOptions } from './layer-store.js';
export type { LayerCompression } from './codec-process.js';
export type { CompressInput, CompressedLayer } from './compress-layer.js';
