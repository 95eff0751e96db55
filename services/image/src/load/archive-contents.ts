import { invalidArgument, isEngineError } from '@flotilla/errors';
import {
  JsonReader,
  digestAlgorithm,
  digestHex,
  formatPlatform,
  hostPlatform,
  isDigest,
  maxManifestBytes,
  parseImageConfig,
  parseManifest,
  parseReference,
  platformMatches,
  selectManifests,
  sha256Of,
  withDefaultTag,
} from '@flotilla/oci';
import type { Descriptor, Digest, Manifest, Platform, Reference } from '@flotilla/oci';
import type { ImageArchive } from './image-archive.js';

/** One image that an archive holds. */
export interface ArchivedImage {
  readonly configBytes: Buffer;
  /** Names of the layers' files, lowest first. */
  readonly layerNames: readonly string[];
  readonly names: readonly Reference[];
  /** The manifest, where the archive has one. */
  readonly manifest: { readonly manifest: Manifest; readonly bytes: Buffer } | undefined;
}

const json = new JsonReader('archive');
const maxImages = 1000;
const maxDepth = 3;

/**
 * What an archive holds: `manifest.json` as docker save writes it, or an OCI image layout. Of one that is both,
 * `manifest.json` says what the images are, and the layout brings their manifests.
 *
 * @throws EngineError `invalidArgument`.
 */
export async function readArchive(archive: ImageArchive, platforms: readonly Platform[]): Promise<ArchivedImage[]> {
  if (archive.find('manifest.json') !== undefined) return readDockerArchive(archive, platforms);
  if (archive.find('index.json') !== undefined) return readLayout(archive, platforms);
  throw invalidArgument('invalid archive: does not contain a manifest.json');
}

async function readDockerArchive(archive: ImageArchive, platforms: readonly Platform[]): Promise<ArchivedImage[]> {
  const bytes = await archive.read('manifest.json', maxManifestBytes);
  const document: unknown = json.parse(`{"images":${bytes.toString('utf8')}}`);
  const items = json.objects(document as Record<string, unknown>, 'images');
  if (items.length > maxImages) throw invalidArgument(`invalid archive: more than ${maxImages} images`);
  const manifests = await manifestsByConfig(archive);
  const images: ArchivedImage[] = [];
  for (const item of items) {
    const configBytes = await archive.read(json.string(item, 'Config'));
    const { platform } = parseImageConfig(configBytes);
    if (platforms.length > 0 && !platforms.some((wanted) => platformMatches(wanted, platform))) continue;
    images.push({
      configBytes,
      layerNames: json.strings(item, 'Layers') ?? [],
      names: (json.strings(item, 'RepoTags') ?? []).map((name) => withDefaultTag(parseReference(name))),
      manifest: manifests.get(sha256Of(configBytes)),
    });
  }
  if (platforms.length > 0) refuseNone(images, platforms);
  return images;
}

/** The manifests of the layout beside `manifest.json`. One that is not as it should be is left out: nothing needs it. */
async function manifestsByConfig(archive: ImageArchive): Promise<Map<Digest, NonNullable<ArchivedImage['manifest']>>> {
  const found = new Map<Digest, NonNullable<ArchivedImage['manifest']>>();
  if (archive.find('index.json') === undefined) return found;
  try {
    for (const { manifest } of await readLayout(archive, [])) {
      if (manifest !== undefined) found.set(manifest.manifest.config.digest, manifest);
    }
  } catch (error) {
    if (!isEngineError(error, 'invalidArgument')) throw error;
  }
  return found;
}

async function readLayout(archive: ImageArchive, platforms: readonly Platform[]): Promise<ArchivedImage[]> {
  const index = parseManifest(await archive.read('index.json', maxManifestBytes));
  if (index.kind !== 'index') throw invalidArgument('invalid archive: index.json is not an index');
  if (index.manifests.length > maxImages) throw invalidArgument(`invalid archive: more than ${maxImages} images`);
  const images: ArchivedImage[] = [];
  for (const entry of index.manifests) {
    const manifest = await readManifest(archive, entry, platforms, 0);
    if (manifest === undefined) continue;
    images.push({
      configBytes: await archive.read(blobName(manifest.manifest.config.digest)),
      layerNames: manifest.manifest.layers.map(({ digest }) => blobName(digest)),
      names: namesOf(entry),
      manifest,
    });
  }
  refuseNone(images, platforms);
  return images;
}

function refuseNone(images: readonly ArchivedImage[], platforms: readonly Platform[]): void {
  if (images.length > 0) return;
  throw invalidArgument(`no image for ${formatPlatform(platforms[0] ?? hostPlatform())} in the archive`);
}

async function readManifest(
  archive: ImageArchive,
  descriptor: Descriptor,
  platforms: readonly Platform[],
  depth: number,
): Promise<{ manifest: Manifest; bytes: Buffer } | undefined> {
  const bytes = await archive.read(blobName(descriptor.digest), maxManifestBytes);
  if (sha256Of(bytes) !== descriptor.digest) {
    throw invalidArgument(`invalid archive: ${blobName(descriptor.digest)} has another digest`);
  }
  const document = parseManifest(bytes, descriptor.mediaType);
  if (document.kind === 'manifest') {
    const { platform } = descriptor;
    const isWanted =
      platforms.length === 0 || platform === undefined || platforms.some((wanted) => platformMatches(wanted, platform));
    return isWanted ? { manifest: document, bytes } : undefined;
  }
  const [best] = selectManifests(document, platforms[0] ?? hostPlatform());
  if (best === undefined || depth === maxDepth || archive.find(blobName(best.digest)) === undefined) return undefined;
  return readManifest(archive, best, platforms, depth + 1);
}

/** As containerd, podman and skopeo name images in a layout; a lone tag is no name of an image. */
function namesOf({ annotations }: Descriptor): Reference[] {
  const full = annotations.get('io.containerd.image.name');
  const short = annotations.get('org.opencontainers.image.ref.name');
  const text = full ?? (short !== undefined && /[:/]/.test(short) ? short : undefined);
  if (text === undefined) return [];
  const reference = parseReference(text);
  return reference.digest === undefined ? [withDefaultTag(reference)] : [];
}

function blobName(digest: Digest): string {
  if (!isDigest(digest)) throw invalidArgument('invalid checksum digest format');
  return `blobs/${digestAlgorithm(digest)}/${digestHex(digest)}`;
}
