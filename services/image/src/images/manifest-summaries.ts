import { parseManifest } from '@flotilla/oci';
import type { Descriptor, Digest } from '@flotilla/oci';
import { image } from '@flotilla/proto';
import type { common } from '@flotilla/proto';
import type { Catalog, CatalogImage } from '../catalog/catalog.js';
import type { BlobRecord } from '../catalog/records.js';
import type { ContentStore } from '../content/content-store.js';
import { blobsOf } from '../pull/pull-image.js';

const { IMAGE, ATTESTATION, UNKNOWN } = image.ManifestKind;

/** The manifests of an image's index, of which some are here, or the one manifest of an image that came without one. */
export class ManifestSummaries {
  readonly #catalog: Catalog;
  readonly #content: ContentStore;

  constructor(catalog: Catalog, content: ContentStore) {
    this.#catalog = catalog;
    this.#content = content;
  }

  /** Those of each image, in the order of its index. One whose index was lost is told of as if it had come without. */
  async *of(images: Iterable<CatalogImage>): AsyncGenerator<image.ListImageManifestsResponse> {
    const here = new Map(this.#catalog.all().map((it) => [it.record.manifest.digest, it]));
    for (const found of images) yield { imageId: found.record.id, manifests: await this.#listed(found, here) };
  }

  async #listed(found: CatalogImage, here: ReadonlyMap<Digest, CatalogImage>): Promise<image.ManifestSummary[]> {
    const { index } = found.record;
    if (index === null || !this.#content.has(index.digest)) return [this.#imageOf(found, undefined)];
    const parsed = parseManifest(await this.#content.read(index.digest), index.mediaType);
    if (parsed.kind !== 'index') return [this.#imageOf(found, undefined)];
    const summaries = parsed.manifests.map((entry) => this.#entry(entry, here));
    // An index inside the index led to it: that one is not kept.
    const isListed = parsed.manifests.some(({ digest }) => digest === found.record.manifest.digest);
    return isListed ? summaries : [...summaries, this.#imageOf(found, undefined)];
  }

  #entry(entry: Descriptor, here: ReadonlyMap<Digest, CatalogImage>): image.ManifestSummary {
    const found = here.get(entry.digest);
    if (found !== undefined) return this.#imageOf(found, entry);
    const attestationFor =
      entry.annotations.get('vnd.docker.reference.type') === 'attestation-manifest'
        ? (entry.annotations.get('vnd.docker.reference.digest') ?? '')
        : undefined;
    const isImage = entry.platform !== undefined && entry.platform.os !== 'unknown';
    return {
      descriptor: descriptorMessage(entry),
      kind: attestationFor !== undefined ? ATTESTATION : isImage ? IMAGE : UNKNOWN,
      available: false,
      contentBytes: BigInt(this.#content.sizeOf(entry.digest) ?? 0),
      unpackedBytes: 0n,
      containerIds: [],
      attestationFor: attestationFor ?? '',
    };
  }

  #imageOf({ record, config, leases }: CatalogImage, entry: Descriptor | undefined): image.ManifestSummary {
    const blobs = [...new Set(blobsOf({ ...record, index: null }).map(({ digest }) => digest))];
    const { platform } = config;
    const descriptor = entry === undefined ? descriptorOf(record.manifest) : descriptorMessage(entry);
    descriptor.platform ??= { ...platform, osVersion: platform.osVersion ?? '', osFeatures: [] };
    return {
      descriptor,
      kind: IMAGE,
      available: blobs.every((digest) => this.#content.has(digest)),
      contentBytes: BigInt(blobs.reduce((sum, digest) => sum + (this.#content.sizeOf(digest) ?? 0), 0)),
      unpackedBytes: BigInt(record.sizeBytes),
      containerIds: leases.map(({ containerId }) => containerId),
      attestationFor: '',
    };
  }
}

/** The descriptor of a blob alone. */
export function descriptorOf({ digest, size, mediaType }: BlobRecord): common.Descriptor {
  return { mediaType, digest, sizeBytes: BigInt(size), urls: [], annotations: {} };
}

function descriptorMessage({ mediaType, digest, size, urls, annotations, platform }: Descriptor): common.Descriptor {
  return {
    mediaType,
    digest,
    sizeBytes: BigInt(size),
    urls: [...urls],
    annotations: Object.fromEntries(annotations),
    platform: platform === undefined ? undefined : { ...platform, osVersion: platform.osVersion ?? '', osFeatures: [] },
  };
}
