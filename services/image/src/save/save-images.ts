import { open } from 'node:fs/promises';
import { dataLoss } from '@flotilla/errors';
import { TarWriter } from '@flotilla/layer-tar';
import { digestAlgorithm, digestHex, familiarName, familiarString, mediaTypes, repositoryName } from '@flotilla/oci';
import type { Digest, Platform } from '@flotilla/oci';
import type { Catalog } from '../catalog/catalog.js';
import type { BlobRecord } from '../catalog/records.js';
import type { ContentStore } from '../content/content-store.js';
import { imageSaved } from '../images/image-events.js';
import { blobsOf } from '../pull/pull-image.js';
import { chooseImages } from './choose-images.js';
import type { ChosenImage } from './choose-images.js';

export interface SaveDeps {
  readonly catalog: Catalog;
  readonly content: ContentStore;
}

const chunkBytes = 256 * 1024;

/**
 * An archive of images that is an OCI image layout and a docker-archive at once, as dockerd writes since version 25.
 *
 * The blobs are those of the store, byte for byte: layers stay compressed, which the `docker load` of every version,
 * skopeo and podman take, and digests stay what they are. What tells of them comes first, so that a reader need not wait
 * for the end. The bytes depend on the images and their names only.
 *
 * @throws EngineError before the first byte: `notFound` `No such image: x`, `dataLoss` when a blob is lost.
 */
export async function* saveImages(
  { catalog, content }: SaveDeps,
  names: readonly string[],
  platforms: readonly Platform[],
  signal: AbortSignal,
): AsyncGenerator<Buffer> {
  const chosen = chooseImages(catalog, names, platforms);
  const blobs = new Map<Digest, BlobRecord>();
  for (const { image } of chosen) {
    for (const blob of blobsToSave(image)) blobs.set(blob.digest, blob);
  }
  const hold = catalog.hold();
  hold.blobs([...blobs.keys()]);
  try {
    for (const digest of blobs.keys()) {
      if (!content.has(digest)) throw dataLoss(`content ${digest} is lost: pull or load the image again`);
    }
    const pending: Buffer[] = [];
    const writer = new TarWriter((bytes) => {
      for (let at = 0; at < bytes.length; at += chunkBytes) {
        pending.push(Buffer.from(bytes.subarray(at, Math.min(at + chunkBytes, bytes.length))));
      }
    });
    writeDescriptions(writer, chosen);
    const chunk = Buffer.allocUnsafe(chunkBytes);
    for (const { digest } of [...blobs.values()].sort((a, b) => (a.digest < b.digest ? -1 : 1))) {
      const size = content.sizeOf(digest) ?? 0;
      writer.entry({ name: blobName(digest), type: 'file', mode: 0o644, size });
      const file = await open(content.path(digest), 'r');
      try {
        for (let at = 0; at < size;) {
          signal.throwIfAborted();
          const { bytesRead } = await file.read(chunk, 0, Math.min(chunkBytes, size - at), at);
          if (bytesRead === 0) throw dataLoss(`content ${digest} is cut short`);
          at += bytesRead;
          writer.data(chunk.subarray(0, bytesRead));
          yield* pending.splice(0);
        }
      } finally {
        await file.close();
      }
    }
    writer.finish();
    yield* pending.splice(0);
    await catalog.commit({ events: chosen.map(({ image }) => imageSaved(image.record.id, image.config)) });
  } finally {
    await hold.release();
  }
}

/** Configuration, manifest and layers; the index that a manifest was found by names images that are not here. */
function blobsToSave({ record }: ChosenImage['image']): BlobRecord[] {
  return blobsOf(record).filter(({ digest }) => digest !== record.index?.digest);
}

function writeDescriptions(writer: TarWriter, chosen: readonly ChosenImage[]): void {
  const put = (name: string, value: unknown): void => {
    const bytes = Buffer.from(JSON.stringify(value));
    writer.entry({ name, type: 'file', mode: 0o644, size: bytes.length });
    writer.data(bytes);
  };
  put('oci-layout', { imageLayoutVersion: '1.0.0' });
  put('index.json', {
    schemaVersion: 2,
    mediaType: mediaTypes.ociIndex,
    manifests: chosen.flatMap(descriptorsOf),
  });
  put('manifest.json', chosen.map(manifestItem));
  const repositories = repositoriesOf(chosen);
  if (Object.keys(repositories).length > 0) put('repositories', repositories);
  for (const name of ['blobs/', 'blobs/sha256/']) writer.entry({ name, type: 'directory', mode: 0o755 });
}

/** Entries of index.json: one for each tag, and one without a name for an image without any. */
function descriptorsOf({ image: { record, config }, tags }: ChosenImage): Record<string, unknown>[] {
  const { architecture, variant, os } = config.platform;
  const descriptor = {
    mediaType: record.manifest.mediaType,
    digest: record.manifest.digest,
    size: record.manifest.size,
    ...(architecture === ''
      ? {}
      : { platform: { architecture, os: os === '' ? 'linux' : os, ...(variant === '' ? {} : { variant }) } }),
  };
  if (tags.length === 0) return [descriptor];
  return tags.map((reference) => ({
    ...descriptor,
    annotations: {
      'io.containerd.image.name': `${repositoryName(reference)}:${reference.tag ?? ''}`,
      'org.opencontainers.image.ref.name': reference.tag ?? '',
    },
  }));
}

function manifestItem({ image: { record }, tags }: ChosenImage): Record<string, unknown> {
  return {
    Config: blobName(record.id),
    RepoTags: tags.length === 0 ? null : tags.map(familiarString),
    Layers: record.layers.map(({ blob }) => blobName(blob.digest)),
  };
}

/** The oldest form of names: tag to topmost layer, by repository. */
function repositoriesOf(chosen: readonly ChosenImage[]): Record<string, Record<string, string>> {
  const repositories: Record<string, Record<string, string>> = {};
  for (const { image, tags } of chosen) {
    const top = image.record.layers.at(-1);
    if (top === undefined) continue;
    for (const reference of tags) {
      (repositories[familiarName(reference)] ??= {})[reference.tag ?? ''] = digestHex(top.blob.digest);
    }
  }
  return repositories;
}

const blobName = (digest: Digest): string => `blobs/${digestAlgorithm(digest)}/${digestHex(digest)}`;
