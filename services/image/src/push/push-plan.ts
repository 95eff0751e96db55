import { dataLoss, isEngineError } from '@flotilla/errors';
import {
  familiarString,
  maxConfigBytes,
  maxManifestBytes,
  parseImageConfig,
  parseManifest,
  shortId,
} from '@flotilla/oci';
import type { Descriptor, Digest, Manifest, Reference } from '@flotilla/oci';
import type { CatalogImage } from '../catalog/catalog.js';
import type { ContentStore } from '../content/content-store.js';

export interface PlannedManifest {
  readonly digest: Digest;
  readonly mediaType: string;
  readonly content: Buffer;
}

export interface PlannedLayer {
  readonly descriptor: Descriptor;
  /** Shown in the progress lines: the DiffID's start, as in Docker. */
  readonly id: string;
}

/** What goes to the registry for one tag. */
export interface PushPlan {
  /** Topmost first, each blob once. */
  readonly layers: readonly PlannedLayer[];
  readonly configs: readonly Descriptor[];
  /** What refers to others comes after them; the last is what the tag will stand for. */
  readonly manifests: readonly PlannedManifest[];
}

/** Indexes inside indexes. */
const maxDepth = 3;

/**
 * What a tag stands for, byte for byte as it came: the index through which the image was pulled when all that it names is
 * here, unless one platform alone is wanted; else the image's own manifest.
 *
 * @throws EngineError `dataLoss` when content of the image is missing.
 */
export async function planPush(
  content: ContentStore,
  image: CatalogImage,
  reference: Reference,
  isOnePlatform: boolean,
): Promise<PushPlan> {
  const { manifest, index } = image.record;
  if (index !== null && !isOnePlatform) {
    const whole = await readTree(content, index.digest, index.mediaType, 0);
    if (whole !== undefined) return whole;
  }
  const plan = await readTree(content, manifest.digest, manifest.mediaType, maxDepth);
  if (plan === undefined) throw dataLoss(`content of ${familiarString(reference)} is missing from the image store`);
  return plan;
}

/** The manifest or index and all below it; undefined unless every blob is here. */
async function readTree(
  content: ContentStore,
  digest: Digest,
  mediaType: string,
  depth: number,
): Promise<PushPlan | undefined> {
  const bytes = await readSmall(content, digest, maxManifestBytes);
  if (bytes === undefined) return undefined;
  const document = parseManifest(bytes, mediaType);
  const own: PlannedManifest = { digest, mediaType: document.mediaType, content: bytes };
  if (document.kind === 'manifest') {
    const layers = await readLayers(content, document);
    if (layers === undefined) return undefined;
    return { layers, configs: [document.config], manifests: [own] };
  }
  if (depth >= maxDepth) return undefined;
  const parts: PushPlan[] = [];
  for (const entry of document.manifests) {
    const part = await readTree(content, entry.digest, entry.mediaType, depth + 1);
    if (part === undefined) return undefined;
    parts.push(part);
  }
  return {
    layers: byDigest(
      parts.flatMap(({ layers }) => layers),
      ({ descriptor }) => descriptor.digest,
    ),
    configs: byDigest(
      parts.flatMap(({ configs }) => configs),
      (it) => it.digest,
    ),
    manifests: [
      ...byDigest(
        parts.flatMap(({ manifests }) => manifests),
        (it) => it.digest,
      ),
      own,
    ],
  };
}

async function readLayers(content: ContentStore, manifest: Manifest): Promise<PlannedLayer[] | undefined> {
  const config = await readSmall(content, manifest.config.digest, maxConfigBytes);
  if (config === undefined) return undefined;
  const isHere = ({ digest, urls }: Descriptor): boolean => urls.length > 0 || content.has(digest);
  if (!manifest.layers.every(isHere)) return undefined;
  const diffIds = diffIdsOf(config);
  const layers = manifest.layers.map((descriptor, at) => ({
    descriptor,
    id: shortId(diffIds[at] ?? descriptor.digest),
  }));
  return byDigest(layers.reverse(), ({ descriptor }) => descriptor.digest);
}

/** None for an artifact, which has no image configuration. */
function diffIdsOf(config: Buffer): readonly Digest[] {
  try {
    return parseImageConfig(config).diffIds;
  } catch (error) {
    if (isEngineError(error, 'invalidArgument')) return [];
    throw error;
  }
}

async function readSmall(content: ContentStore, digest: Digest, limit: number): Promise<Buffer | undefined> {
  const size = content.sizeOf(digest);
  return size === undefined || size > limit ? undefined : content.read(digest);
}

function byDigest<T>(items: readonly T[], digestOf: (item: T) => string): T[] {
  return [...new Map(items.toReversed().map((item) => [digestOf(item), item])).values()].reverse();
}
