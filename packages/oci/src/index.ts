export { digestAlgorithm, digestHex, isDigest, parseDigest, sha256Digest, sha256Of, shortId } from './digest.js';
export type { Digest } from './digest.js';
export {
  canonicalString,
  defaultDomain,
  defaultTag,
  familiarName,
  familiarString,
  isNameOnly,
  parseAnyReference,
  parseReference,
  repositoryName,
  trimReference,
  withDefaultTag,
  withDigest,
  withTag,
  withTagOrDigest,
} from './reference.js';
export type { AnyReference, Reference } from './reference.js';
export { acceptedManifestTypes, isIndexType, isManifestType, isSchema1Type, mediaTypes } from './media-types.js';
export {
  formatPlatform,
  hostPlatform,
  normalizePlatform,
  parsePlatform,
  platformDistance,
  platformMatches,
} from './platform.js';
export type { Platform } from './platform.js';
export { maxManifestBytes, parseDescriptor, parseManifest, selectManifests } from './manifest.js';
export type { Descriptor, Index, Manifest } from './manifest.js';
export {
  chainIds,
  emptyRunConfig,
  maxConfigBytes,
  parseImageConfig,
  parseRunConfig,
  renderRunConfig,
} from './image-config.js';
export type { Healthcheck, HistoryStep, ImageConfig, RunConfig } from './image-config.js';
export { JsonReader } from './json.js';
export type { JsonObject } from './json.js';
