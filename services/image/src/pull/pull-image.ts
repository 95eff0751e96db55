import { dataLoss, internal, invalidArgument, isEngineError } from '@flotilla/errors';
import {
  chainIds as chainIdsOf,
  familiarString,
  formatPlatform,
  maxConfigBytes,
  normalizePlatform,
  parseImageConfig,
  platformMatches,
  sha256Of,
  shortId,
  withDigest,
} from '@flotilla/oci';
import type { Descriptor, Digest, ImageConfig, Platform, Reference } from '@flotilla/oci';
import pLimit from 'p-limit';
import type { LimitFunction } from 'p-limit';
import type { Catalog, Hold, NamedImages } from '../catalog/catalog.js';
import type { BlobRecord, ImageRecord, LayerRecord } from '../catalog/records.js';
import type { ContentStore } from '../content/content-store.js';
import { imagePulled } from '../images/image-events.js';
import { BlobUnfinished } from '../layers/index.js';
import type { AppliedLayer, GrowingBlob, LayerStore, WholeBlob } from '../layers/index.js';
import { compressionOfFile } from '../layers/blob-compression.js';
import { selectImage } from './image-selection.js';
import type { SelectedImage } from './image-selection.js';
import type { ProgressLog } from './progress-log.js';
import type { Credentials, FetchProgress, RegistrySource } from './registry-source.js';

export interface PullDeps {
  readonly catalog: Catalog;
  readonly content: ContentStore;
  readonly layers: LayerStore;
  readonly source: RegistrySource;
  readonly now: () => Date;
}

export interface PullRequest {
  /** With a tag or a digest. */
  readonly reference: Reference;
  readonly platform: Platform | undefined;
  readonly credentials: Credentials;
}

/** Pulls images; transfers are bounded over all pulls, work on the same blobs and layers is shared. */
export class Puller {
  readonly #deps: PullDeps;
  readonly #downloads: LimitFunction;

  constructor(deps: PullDeps, maxConcurrentDownloads: number) {
    this.#deps = deps;
    this.#downloads = pLimit(maxConcurrentDownloads);
  }

  set maxConcurrentDownloads(count: number) {
    this.#downloads.concurrency = count;
  }

  /** Every tag of a repository, one after the other. */
  async pullAll(request: PullRequest, log: ProgressLog, signal: AbortSignal): Promise<bigint> {
    const tags = await this.#deps.source.tags(request.reference, request.credentials, signal);
    if (tags.length === 0) throw invalidArgument(`no tags found for ${familiarString(request.reference)}`);
    let revision = this.#deps.catalog.revision;
    for (const tag of tags) {
      const { domain, path } = request.reference;
      revision = await this.pull({ ...request, reference: { domain, path, tag } }, log, signal);
    }
    return revision;
  }

  /**
   * Pull one image. Nothing is written to `log` before the manifest is there, so that a refusal can still become the
   * status of the whole request. On failure nothing half-made stays.
   */
  async pull(request: PullRequest, log: ProgressLog, signal: AbortSignal): Promise<bigint> {
    const stop = new AbortController();
    const session = new PullSession(
      this.#deps,
      this.#downloads,
      request,
      log,
      AbortSignal.any([signal, stop.signal]),
      (error) => stop.abort(error),
    );
    try {
      return await session.run();
    } catch (error) {
      signal.throwIfAborted();
      // The failure that made the others stop, not one of theirs.
      const cause: unknown = stop.signal.aborted ? stop.signal.reason : error;
      // dockerd answers 500 where a registry refuses credentials for a pull.
      throw isEngineError(cause, 'unauthenticated') ? internal(cause.message, { cause }) : cause;
    }
  }
}

class PullSession {
  readonly #deps: PullDeps;
  readonly #downloads: LimitFunction;
  readonly #request: PullRequest;
  readonly #log: ProgressLog;
  readonly #signal: AbortSignal;
  readonly #fail: (error: unknown) => void;
  readonly #hold: Hold;

  constructor(
    deps: PullDeps,
    downloads: LimitFunction,
    request: PullRequest,
    log: ProgressLog,
    signal: AbortSignal,
    fail: (error: unknown) => void,
  ) {
    this.#deps = deps;
    this.#downloads = downloads;
    this.#request = request;
    this.#log = log;
    this.#signal = signal;
    this.#fail = fail;
    this.#hold = deps.catalog.hold();
  }

  async run(): Promise<bigint> {
    const { reference, platform, credentials } = this.#request;
    const target = reference.digest ?? reference.tag ?? 'latest';
    const { source } = this.#deps;
    const selected = await selectImage(source, reference, target, platform, credentials, this.#signal);
    for (const status of selected.warnings) this.#log.push({ status });
    this.#log.push({ id: target, status: `Pulling from ${reference.path}` });
    try {
      const { record, config } = await this.#obtain(selected);
      this.#log.push({ status: `Digest: ${selected.referenceDigest}` });
      const revision = await this.#name(record, config, selected);
      if (platform !== undefined) this.#warnOfPlatform(config, platform);
      return revision;
    } finally {
      await this.#hold.release();
    }
  }

  /** The image's record, with all its blobs and layers in place. */
  async #obtain(selected: SelectedImage): Promise<{ record: ImageRecord; config: ImageConfig }> {
    const { catalog, content } = this.#deps;
    const { manifest, manifestBytes, index } = selected;
    this.#hold.blobs([
      manifest.config.digest,
      selected.manifestDigest,
      ...(index === undefined ? [] : [index.digest]),
      ...manifest.layers.map(({ digest }) => digest),
    ]);
    const known = catalog.get(manifest.config.digest);
    if (known !== undefined) {
      const chainIds = known.record.layers.map(({ chainId }) => chainId);
      this.#hold.layers(chainIds);
      const isWhole =
        chainIds.every((chainId) => this.#deps.layers.has(chainId)) &&
        blobsOf(known.record).every(({ digest }) => content.has(digest));
      if (isWhole) return { record: await this.#throughIndex(known.record, selected), config: known.config };
    }
    for (const layer of manifest.layers) this.#log.push({ id: shortId(layer.digest), status: 'Pulling fs layer' });
    const configBytes = await this.#fetchConfig(manifest.config);
    const config = parseImageConfig(configBytes);
    if (config.diffIds.length !== manifest.layers.length) {
      throw invalidArgument("layers from manifest don't match image configuration");
    }
    if (config.platform.os !== '' && config.platform.os !== 'linux') {
      throw invalidArgument(`image operating system "${config.platform.os}" cannot be used on this platform`);
    }
    const layers = layerRecords(manifest.layers, config.diffIds);
    this.#hold.layers(layers.map(({ chainId }) => chainId));
    const sizes = await this.#obtainLayers(manifest.layers, layers);
    await content.put(manifestBytes);
    if (index !== undefined) await content.put(index.content);
    const record: ImageRecord = {
      id: manifest.config.digest,
      configJson: configBytes.toString('utf8'),
      manifest: { digest: selected.manifestDigest, size: manifestBytes.length, mediaType: manifest.mediaType },
      index:
        index === undefined ? null : { digest: index.digest, size: index.content.length, mediaType: index.mediaType },
      layers,
      sizeBytes: sizes.reduce((sum, size) => sum + size, 0),
      parent: known?.record.parent ?? '',
      addedAt: known?.record.addedAt ?? this.#deps.now().toISOString(),
      lastTaggedAt: known?.record.lastTaggedAt ?? '',
    };
    return { record, config };
  }

  /** The record of an image that is here: it now came through the index that led to it, if its blobs are the same. */
  async #throughIndex(record: ImageRecord, { manifest, manifestBytes, index }: SelectedImage): Promise<ImageRecord> {
    const isSame = manifest.layers.every(({ digest }, at) => digest === record.layers[at]?.blob.digest);
    if (index === undefined || index.digest === record.index?.digest || !isSame) return record;
    const { content } = this.#deps;
    await content.put(index.content);
    const { mediaType } = manifest;
    return {
      ...record,
      manifest: { digest: await content.put(manifestBytes), size: manifestBytes.length, mediaType },
      index: { digest: index.digest, size: index.content.length, mediaType: index.mediaType },
    };
  }

  async #fetchConfig(descriptor: Descriptor): Promise<Buffer> {
    if (descriptor.size > maxConfigBytes) {
      throw invalidArgument(`invalid image configuration: larger than ${maxConfigBytes} bytes`);
    }
    const { source, content } = this.#deps;
    await source.fetch(this.#request.reference, descriptor, this.#request.credentials, () => undefined, this.#signal);
    const bytes = await content.read(descriptor.digest);
    if (sha256Of(bytes) !== descriptor.digest || bytes.length !== descriptor.size) {
      throw dataLoss(`image config verification failed for digest ${descriptor.digest}`);
    }
    return bytes;
  }

  /** All layers at once, bounded by the downloads' limit and the layer store's own; the first failure stops the rest. */
  async #obtainLayers(descriptors: readonly Descriptor[], layers: readonly LayerRecord[]): Promise<number[]> {
    const results = await Promise.allSettled(
      layers.map(async (layer, at) => {
        try {
          return await this.#obtainLayer(layer, layers[at - 1]?.chainId, descriptors[at]);
        } catch (error) {
          this.#fail(error);
          throw error;
        }
      }),
    );
    return results.map((result) => {
      if (result.status === 'rejected') throw result.reason;
      return result.value;
    });
  }

  async #obtainLayer(
    layer: LayerRecord,
    parentChainId: Digest | undefined,
    descriptor: Descriptor | undefined,
  ): Promise<number> {
    const { layers, content, source } = this.#deps;
    const id = shortId(layer.blob.digest);
    const log = this.#log;
    if (descriptor === undefined) throw internal('a layer without descriptor');
    if (layers.has(layer.chainId) && content.has(layer.blob.digest)) {
      this.#checkSize(descriptor);
      log.push({ id, status: 'Already exists' });
      return Number(layers.sizeOf(layer.chainId));
    }
    const extracting = new Extraction(log, id, layer.blob.size);
    const place = { ...(parentChainId === undefined ? {} : { parentChainId }), diffId: layer.diffId };
    const apply = (blob: WholeBlob | { growing: GrowingBlob }): Promise<AppliedLayer> =>
      layers.applyLayer({ ...blob, ...place, signal: this.#signal, onProgress: (bytes) => extracting.advance(bytes) });
    let applying: Promise<AppliedLayer> | undefined;
    if (!content.has(layer.blob.digest)) {
      if (this.#downloads.activeCount >= this.#downloads.concurrency) log.push({ id, status: 'Waiting' });
      const report = ({ current, total, status, growing }: FetchProgress): void => {
        if (status !== '') log.push({ id, status });
        else log.detail(id, 'Downloading', current, total);
        if (growing === undefined || applying !== undefined || this.#signal.aborted) return;
        applying = apply({ growing });
        applying.catch((error: unknown) => {
          // A full disk is told at once; of a download that failed its own error is.
          if (!(error instanceof BlobUnfinished)) this.#fail(error);
        });
      };
      try {
        await this.#downloads(async () => {
          this.#signal.throwIfAborted();
          const { reference, credentials } = this.#request;
          await source.fetch(reference, descriptor, credentials, report, this.#signal);
        });
      } catch (error) {
        // Nothing of it is left when the failure is told.
        await applying?.catch(() => undefined);
        throw error;
      }
      log.push({ id, status: 'Verifying Checksum' });
    }
    this.#checkSize(descriptor);
    log.push({ id, status: 'Download complete' });
    extracting.show();
    const { sizeBytes } = await (applying ?? this.#applyStored(layer.blob.digest, apply));
    log.push({ id, status: 'Pull complete' });
    return Number(sizeBytes);
  }

  async #applyStored(digest: Digest, apply: (blob: WholeBlob) => Promise<AppliedLayer>): Promise<AppliedLayer> {
    const blobPath = this.#deps.content.path(digest);
    return apply({ blobPath, compression: await compressionOfFile(blobPath) });
  }

  /** The digest is right: the manifest may still state another size, which would go into the record. */
  #checkSize({ digest, size }: Descriptor): void {
    if (this.#deps.content.sizeOf(digest) === size) return;
    throw dataLoss(`filesystem layer verification failed for digest ${digest}`);
  }

  /** Record the image and its names, when everything that they stand for is on the disk. */
  async #name(record: ImageRecord, config: ImageConfig, selected: SelectedImage): Promise<bigint> {
    const { catalog, content } = this.#deps;
    const { reference } = this.#request;
    const names = [withDigest(reference, selected.referenceDigest)];
    if (reference.digest === undefined) names.unshift(reference);
    await content.settled(blobsOf(record).map(({ digest }) => digest));
    this.#signal.throwIfAborted();
    const named = names.map((name) => this.#beside(name, record, selected));
    const isUpdated = named.slice(0, 1).some(({ reference: name }) => !catalog.imagesNamed(name).includes(record.id));
    const isKept = catalog.get(record.id)?.record === record;
    const putImages = isUpdated || !isKept ? [this.#stamped(record, isUpdated)] : [];
    const revision = await catalog.commit({
      putImages: [...putImages, ...named.flatMap(({ moved }) => moved)],
      name: named.filter(({ reference: name, siblings }) => {
        const before = catalog.imagesNamed(name);
        return before.at(-1) !== record.id || before.length !== siblings.length + 1;
      }),
      touch: [record.id],
      events: [imagePulled(reference, config)],
    });
    if (putImages.length > 0) this.#deps.source.forget(blobsOf(record).map(({ digest }) => digest));
    const shown = familiarString(reference);
    const status = isUpdated ? `Downloaded newer image for ${shown}` : `Image is up to date for ${shown}`;
    this.#log.push({ status: `Status: ${status}` });
    return revision;
  }

  /**
   * The image under a name, beside those of other platforms that the same index offers; what the name meant before an
   * index was replaced does not stay. `moved`: siblings that came through an older index which has them as well.
   */
  #beside(
    reference: Reference,
    record: ImageRecord,
    { indexManifests }: SelectedImage,
  ): NamedImages & { readonly siblings: readonly Digest[]; readonly moved: ImageRecord[] } {
    const { catalog } = this.#deps;
    const others = catalog.imagesNamed(reference).flatMap((id) => (id === record.id ? [] : (catalog.get(id) ?? [])));
    const offered = others.filter(
      (other) =>
        record.index !== null &&
        (other.record.index?.digest === record.index.digest || indexManifests.has(other.record.manifest.digest)),
    );
    return {
      reference,
      imageId: record.id,
      siblings: offered.map((other) => other.record.id),
      moved: offered
        .filter((other) => other.record.index?.digest !== record.index?.digest)
        .map((other) => ({ ...other.record, index: record.index })),
    };
  }

  #stamped(record: ImageRecord, isTagged: boolean): ImageRecord {
    return isTagged ? { ...record, lastTaggedAt: this.#deps.now().toISOString() } : record;
  }

  #warnOfPlatform({ platform: actual }: ImageConfig, wanted: Platform): void {
    if (actual.architecture === '' || platformMatches(wanted, actual)) return;
    const name = familiarString(this.#request.reference);
    const found = formatPlatform(normalizePlatform(actual));
    this.#log.push({
      status: `WARNING: image with reference ${name} was found but its platform (${found}) does not match the specified platform (${formatPlatform(wanted)})`,
    });
  }
}

/** The bar of a layer that is being unpacked; hidden while it is still being downloaded. */
class Extraction {
  readonly #log: ProgressLog;
  readonly #id: string;
  readonly #size: number;
  #bytes = 0;
  #isShown = false;

  constructor(log: ProgressLog, id: string, size: number) {
    this.#log = log;
    this.#id = id;
    this.#size = size;
  }

  advance(bytes: number): void {
    this.#bytes = bytes;
    if (this.#isShown) this.#log.detail(this.#id, 'Extracting', bytes, this.#size);
  }

  show(): void {
    this.#isShown = true;
    if (this.#bytes > 0) this.advance(this.#bytes);
  }
}

/** Blobs that a record needs. */
export function blobsOf({ id, configJson, manifest, index, layers }: ImageRecord): BlobRecord[] {
  return [
    { digest: id, size: Buffer.byteLength(configJson), mediaType: '' },
    manifest,
    ...(index === null ? [] : [index]),
    ...layers.map(({ blob }) => blob),
  ];
}

function layerRecords(descriptors: readonly Descriptor[], diffIds: readonly Digest[]): LayerRecord[] {
  const chain = chainIdsOf(diffIds);
  return descriptors.map(({ digest, size, mediaType }, at) => {
    const [diffId, chainId] = [diffIds[at], chain[at]];
    if (diffId === undefined || chainId === undefined) throw internal('a layer without DiffID');
    return { diffId, chainId, blob: { digest, size, mediaType } };
  });
}
