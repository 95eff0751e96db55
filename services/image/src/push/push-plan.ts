import { dataLoss, isEngineError, notFound } from '@flotilla/errors';
import {
  familiarString,
  formatPlatform,
  maxConfigBytes,
  maxManifestBytes,
  parseImageConfig,
  parseManifest,
  platformMatches,
  selectManifests,
  shortId,
} from '@flotilla/oci';
import type { Descriptor, Digest, Manifest, Platform, Reference } from '@flotilla/oci';
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
 * Choose what a tag stands for, byte for byte as it came: the index through which the image was pulled when all that it
 * names is here, else the image's own manifest. With a platform: that platform's manifest.
 *
 * @throws EngineError `notFound` when the image is of another platform; `dataLoss` when content of it is missing.
 */
export async function planPush(
  content: ContentStore,
  image: CatalogImage,
  reference: Reference,
  platform: Platform | undefined,
): Promise<PushPlan> {
  const { manifest, index } = image.record;
  if (index !== null && content.has(index.digest)) {
    const found =
      platform === undefined
        ? await readTree(content, index.digest, index.mediaType, 0)
        : await readPlatform(content, index.digest, index.mediaType, platform, 0);
    if (found !== undefined) return found;
  }
  checkPlatform(image, reference, platform);
  const plan = await readTree(content, manifest.digest, manifest.mediaType, maxDepth);
  if (plan === undefined) throw dataLoss(`content of ${familiarString(reference)} is missing from the image store`);
  return plan;
}

/** @throws EngineError `notFound` in Docker's words. */
function checkPlatform({ config }: CatalogImage, reference: Reference, platform: Platform | undefined): void {
  if (platform === undefined || platformMatches(platform, config.platform)) return;
  throw notFound(
    `image with reference ${familiarString(reference)} was found but its platform (${formatPlatform(config.platform)}) does not match the specified platform (${formatPlatform(platform)})`,
  );
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

/** The best entry of an index for the platform that is here as a whole. */
async function readPlatform(
  content: ContentStore,
  digest: Digest,
  mediaType: string,
  platform: Platform,
  depth: number,
): Promise<PushPlan | undefined> {
  const bytes = await readSmall(content, digest, maxManifestBytes);
  const document = bytes === undefined ? undefined : parseManifest(bytes, mediaType);
  if (document?.kind !== 'index' || depth >= maxDepth) return undefined;
  for (const entry of selectManifests(document, platform)) {
    if (entry.platform === undefined || !platformMatches(platform, entry.platform)) continue;
    const plan = await readTree(content, entry.digest, entry.mediaType, maxDepth);
    if (plan !== undefined) return plan;
  }
  return undefined;
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
