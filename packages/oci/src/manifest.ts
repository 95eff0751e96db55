import { invalidArgument } from '@flotilla/errors';
import { parseDigest } from './digest.js';
import type { Digest } from './digest.js';
import { JsonReader } from './json.js';
import type { JsonObject } from './json.js';
import { isIndexType, isManifestType, isSchema1Type, mediaTypes } from './media-types.js';
import { platformDistance } from './platform.js';
import type { Platform } from './platform.js';

/** Largest manifest or index that is read. */
export const maxManifestBytes = 4 * 1024 * 1024;
/** More layers than any image may have (overlay itself stops at 500). */
const maxLayers = 1000;
const maxIndexEntries = 10_000;

export interface Descriptor {
  readonly mediaType: string;
  readonly digest: Digest;
  readonly size: number;
  readonly urls: readonly string[];
  readonly annotations: ReadonlyMap<string, string>;
  readonly platform?: Platform;
}

export interface Manifest {
  readonly kind: 'manifest';
  readonly mediaType: string;
  readonly config: Descriptor;
  /** Lowest first. */
  readonly layers: readonly Descriptor[];
}

export interface Index {
  readonly kind: 'index';
  readonly mediaType: string;
  readonly manifests: readonly Descriptor[];
}

const json = new JsonReader('manifest');

/**
 * Read a manifest or an index. `mediaType` is what the registry said, empty if unknown; the document's own wins when
 * the two are of the same sort.
 *
 * @throws EngineError `invalidArgument`: malformed, schema 1, an unknown type, or a document that contradicts its type.
 */
export function parseManifest(bytes: Uint8Array, mediaType = ''): Manifest | Index {
  if (bytes.length > maxManifestBytes) {
    throw invalidArgument(`invalid manifest: larger than ${maxManifestBytes} bytes`);
  }
  if (isSchema1Type(mediaType)) throw schema1Refused();
  const document = json.parse(bytes);
  const version = json.integer(document, 'schemaVersion');
  if (version === 1) throw schema1Refused();
  if (version !== 2) throw invalidArgument(`invalid manifest: unsupported schema version ${version}`);
  const stated = json.string(document, 'mediaType');
  const type = manifestType(document, stated, mediaType);
  // One document must not be read as an index by some and as a manifest by others (CVE-2021-41190).
  if (isIndexType(type)) {
    if (Object.hasOwn(document, 'layers') || Object.hasOwn(document, 'config')) {
      throw invalidArgument('invalid manifest: an index with layers or config');
    }
    const entries = json.objects(document, 'manifests');
    if (entries.length > maxIndexEntries) throw invalidArgument('invalid manifest: too many entries in the index');
    return { kind: 'index', mediaType: type, manifests: entries.map(parseDescriptor) };
  }
  if (Object.hasOwn(document, 'manifests')) throw invalidArgument('invalid manifest: a manifest with manifests');
  const config = json.object(document, 'config');
  if (config === undefined) throw invalidArgument('invalid manifest: config is missing');
  const layers = json.objects(document, 'layers');
  if (layers.length > maxLayers) throw invalidArgument(`invalid manifest: more than ${maxLayers} layers`);
  return { kind: 'manifest', mediaType: type, config: parseDescriptor(config), layers: layers.map(parseDescriptor) };
}

function manifestType(document: JsonObject, stated: string, told: string): string {
  for (const type of [stated, told]) {
    if (isIndexType(type) || isManifestType(type)) return type;
    if (isSchema1Type(type)) throw schema1Refused();
  }
  const type = stated === '' ? told : stated;
  if (!['', 'application/json', 'application/octet-stream', 'text/plain'].includes(type)) {
    throw invalidArgument(`unsupported manifest media type ${JSON.stringify(type.slice(0, 100))}`);
  }
  return Object.hasOwn(document, 'manifests') ? mediaTypes.ociIndex : mediaTypes.ociManifest;
}

const schema1Refused = () =>
  invalidArgument(
    'Docker Image Format v1 and Docker Image manifest version 2, schema 1 are not supported. ' +
      'Suggest the author of the image to upgrade it to the OCI Format or Docker Image manifest v2, schema 2. ' +
      'More information at https://docs.docker.com/go/deprecated-image-specs/',
  );

/** @throws EngineError `invalidArgument` for a bad digest, size or type. */
export function parseDescriptor(object: JsonObject): Descriptor {
  const platform = json.object(object, 'platform');
  return {
    mediaType: json.string(object, 'mediaType'),
    digest: parseDigest(json.string(object, 'digest')),
    size: json.size(object, 'size'),
    urls: json.strings(object, 'urls') ?? [],
    annotations: json.map(object, 'annotations'),
    ...(platform === undefined
      ? {}
      : {
          platform: {
            os: json.string(platform, 'os'),
            architecture: json.string(platform, 'architecture'),
            variant: json.string(platform, 'variant'),
            osVersion: json.string(platform, 'os.version'),
          },
        }),
  };
}

/**
 * The entries of an index that run on the platform, best first. Entries without a platform come last; attestations
 * (platform `unknown/unknown`) never match.
 */
export function selectManifests(index: Index, wanted: Platform): Descriptor[] {
  return index.manifests
    .flatMap((entry) => {
      const distance =
        entry.platform === undefined ? Number.MAX_SAFE_INTEGER : platformDistance(wanted, entry.platform);
      return distance === undefined ? [] : [{ entry, distance }];
    })
    .sort((a, b) => a.distance - b.distance)
    .map(({ entry }) => entry);
}
