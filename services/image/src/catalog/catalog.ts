import { messageOf, notFound } from '@flotilla/errors';
import type { Logger } from '@flotilla/log';
import {
  canonicalString,
  familiarString,
  formatPlatform,
  hostPlatform,
  normalizePlatform,
  parseAnyReference,
  parseImageConfig,
  parseReference,
  platformDistance,
  platformMatches,
  withDefaultTag,
} from '@flotilla/oci';
import type { Digest, ImageConfig, Platform, Reference } from '@flotilla/oci';
import { AsideEntries, jsonCodec } from '@flotilla/store';
import type { Batch, Collection, EngineEvent, Store } from '@flotilla/store';
import { leasedImages, leasedLayers } from './records.js';
import type { ImageRecord, LeaseRecord, ReferenceRecord } from './records.js';
import { UseCounts } from './use-counts.js';

/** An image as it is now, with everything that refers to it. */
export interface CatalogImage {
  readonly record: ImageRecord;
  readonly config: ImageConfig;
  /** Sorted by name. */
  readonly references: readonly Reference[];
  /** Those of the references that mean an image of another platform unless this one's is asked for. */
  readonly secondary: readonly Reference[];
  readonly leases: readonly LeaseRecord[];
}

/** What becomes true together. */
export interface CatalogChange {
  readonly putImages?: readonly ImageRecord[];
  readonly removeImages?: readonly Digest[];
  /** Names that point at an image, and its siblings of other platforms, from now on; wherever they pointed before. */
  readonly name?: readonly NamedImages[];
  readonly unname?: readonly Reference[];
  readonly putLeases?: readonly LeaseRecord[];
  readonly removeLeases?: readonly string[];
  /** Images that readers are told of although nothing of theirs changes. */
  readonly touch?: readonly Digest[];
  readonly events?: readonly EngineEvent[];
  /** The answer to keep for the request, made with the change's revision. */
  readonly reply?: { readonly requestId: string; readonly encode: (revision: bigint) => Uint8Array } | undefined;
}

export interface NamedImages extends ReferenceRecord {
  readonly reference: Reference;
}

/** Told of the images that changed; `undefined`: gone. */
type ChangeListener = (revision: bigint, changes: readonly (readonly [Digest, CatalogImage | undefined])[]) => void;

/** Takes away what the records no longer need. */
export interface Collector {
  /** Chain ids and digests that were just released; some may be in use again. */
  collect(keys: readonly string[]): Promise<void>;
}

interface Entry {
  record: ImageRecord;
  config: ImageConfig;
  references: Map<string, Reference>;
  /** The references by their names; undefined when they have changed. */
  sorted: readonly (readonly [string, Reference])[] | undefined;
  leases: Map<string, LeaseRecord>;
}

const host = hostPlatform();
const layerKey = (chainId: string): string => `layer ${chainId}`;
const blobKey = (digest: string): string => `blob ${digest}`;

/**
 * All records of images, names and leases: an index in memory over the store, changed at once and written behind in
 * the order of the changes. A change that cannot be written is taken back and its caller told.
 */
export class Catalog {
  readonly #store: Store;
  readonly #imageRecords: Collection<ImageRecord>;
  readonly #referenceRecords: Collection<ReferenceRecord>;
  readonly #leaseRecords: Collection<LeaseRecord>;
  readonly #images = new Map<Digest, Entry>();
  /** Image ids in the order in which they were named. */
  readonly #references = new Map<string, { reference: Reference; imageIds: readonly Digest[] }>();
  readonly #leases = new Map<string, LeaseRecord>();
  readonly #aside: AsideEntries;
  readonly #counts = new UseCounts();
  readonly #listeners = new Set<ChangeListener>();
  readonly #inFlight = new Set<Promise<void>>();
  #collector: Collector | undefined;
  #publishedRevision: bigint;

  private constructor(store: Store, aside: AsideEntries) {
    this.#store = store;
    this.#aside = aside;
    this.#publishedRevision = store.revision;
    this.#imageRecords = store.collection('images', jsonCodec<ImageRecord>());
    this.#referenceRecords = store.collection('references', jsonCodec<ReferenceRecord>());
    this.#leaseRecords = store.collection('leases', jsonCodec<LeaseRecord>());
  }

  /** Read everything. What cannot be read is set aside: its image, name or lease is missing, and nothing that may be needed by it is deleted. */
  static async load(store: Store, log?: Pick<Logger, 'error'>): Promise<Catalog> {
    const catalog = new Catalog(store, await AsideEntries.load(store));
    await catalog.#read(catalog.#imageRecords, (_, record) => catalog.#addImage(record), log);
    await catalog.#read(
      catalog.#referenceRecords,
      (key, record) => catalog.#setName(parseReference(key), idsOf(record)),
      log,
    );
    await catalog.#read(catalog.#leaseRecords, (_, lease) => catalog.#addLease(lease), log);
    return catalog;
  }

  async #read<T>(
    from: Collection<T>,
    add: (key: string, value: T) => void,
    log: Pick<Logger, 'error'> | undefined,
  ): Promise<void> {
    const { entries, damaged } = await from.salvage();
    for (const [key, value] of entries) {
      try {
        add(key, value);
      } catch (error) {
        damaged.push({
          ...{ collection: from.name, key, reason: messageOf(error) },
          bytes: Buffer.from(JSON.stringify(value)),
        });
      }
    }
    if (damaged.length === 0) return;
    for (const { key, reason } of damaged) {
      log?.error({ record: `${from.name}/${key}`, reason }, 'a damaged record is set aside');
    }
    await this.#store.commit((batch) => {
      for (const entry of damaged) this.#aside.set(batch, from, entry);
    });
  }

  /** Whether records of images or leases were damaged and nothing has taken their place: what seems to be needed by none may be needed by them. */
  get mayMissRecords(): boolean {
    return this.#aside.has('images', 'leases');
  }

  /** Containers whose leases were damaged. */
  get damagedLeases(): string[] {
    return this.#aside.keysOf('leases');
  }

  set collector(collector: Collector) {
    this.#collector = collector;
  }

  get(id: Digest): CatalogImage | undefined {
    const entry = this.#images.get(id);
    return entry === undefined ? undefined : this.#view(entry);
  }

  all(): CatalogImage[] {
    return [...this.#images.values()].map((entry) => this.#view(entry));
  }

  /** Images that were made from this one here. */
  childrenOf(id: Digest): Digest[] {
    return [...this.#images.values()].flatMap(({ record }) => (record.parent === id ? [record.id] : []));
  }

  /** Names that stand for an image that is not there; there are none unless something went wrong. */
  danglingReferences(): { readonly reference: Reference; readonly rest: readonly Digest[] }[] {
    return [...this.#references.values()]
      .filter(({ imageIds }) => imageIds.some((id) => !this.#images.has(id)))
      .map(({ reference, imageIds }) => ({ reference, rest: imageIds.filter((id) => this.#images.has(id)) }));
  }

  get referenceCount(): number {
    return this.#references.size;
  }

  /** The image that the exact reference means: that of this machine's platform, or else the one named last. */
  named(reference: Reference): Digest | undefined {
    return this.#best(this.imagesNamed(reference), host);
  }

  /** All images that the exact reference names, the one named last at the end. */
  imagesNamed(reference: Reference): readonly Digest[] {
    return this.#references.get(canonicalString(reference))?.imageIds ?? [];
  }

  /** The last one if none runs on the platform. */
  #best(ids: readonly Digest[], platform: Platform): Digest | undefined {
    if (ids.length < 2) return ids[0];
    const distanceOf = (id: Digest): number => {
      const entry = this.#images.get(id);
      return (entry && platformDistance(platform, entry.config.platform)) ?? Infinity;
    };
    return ids.reduce((best, id) => (distanceOf(id) <= distanceOf(best) ? id : best));
  }

  lease(containerId: string): LeaseRecord | undefined {
    return this.#leases.get(containerId);
  }

  leases(): LeaseRecord[] {
    return [...this.#leases.values()];
  }

  /**
   * The image that a user means by a name, an id or the start of an id, names first. Of several images under one name
   * it is that of the platform, or of this machine's when none is asked for, or the one that was named last.
   *
   * @throws EngineError `invalidArgument` for what is no name at all; `notFound` `No such image: x`.
   */
  resolve(nameOrId: string, platform?: Platform): CatalogImage {
    const all = this.resolveAll(nameOrId);
    const ids = all.map(({ record }) => record.id);
    const image = all.find(({ record }) => record.id === this.#best(ids, platform ?? host)) ?? all[0];
    if (image === undefined) throw notFound(`No such image: ${nameOrId}`);
    if (platform !== undefined && !platformMatches(platform, image.config.platform)) {
      const actual = formatPlatform(normalizePlatform(image.config.platform));
      throw notFound(
        `image with reference ${nameOrId} was found but its platform (${actual}) does not match the specified platform (${formatPlatform(platform)})`,
      );
    }
    return image;
  }

  /** All images that a name stands for, one at least; an id stands for one. @throws EngineError as `resolve`. */
  resolveAll(nameOrId: string): CatalogImage[] {
    const parsed = parseAnyReference(nameOrId);
    if (parsed.kind === 'id') {
      const image = this.get(parsed.id);
      if (image !== undefined) return [image];
      throw notFound(`No such image: ${parsed.id}`);
    }
    const reference = withDefaultTag(parsed.reference);
    const named = this.imagesNamed(reference);
    const images = (named.length > 0 ? named : this.#ofDigest(reference)).flatMap((id) => this.get(id) ?? []);
    if (images.length > 0) return images;
    const image = this.#byPrefix(nameOrId);
    if (image === undefined) throw notFound(`No such image: ${familiarString(reference)}`);
    return [image];
  }

  /** `name:tag@digest` names what `name@digest` does. */
  #ofDigest({ domain, path, tag, digest }: Reference): readonly Digest[] {
    if (tag === undefined || digest === undefined) return [];
    return this.imagesNamed({ domain, path, digest });
  }

  #byPrefix(text: string): CatalogImage | undefined {
    const prefix = text.startsWith('sha256:') ? text : `sha256:${text}`;
    if (!/^sha256:[0-9a-f]+$/.test(prefix)) return undefined;
    const ids = [...this.#images.keys()].filter((id) => id.startsWith(prefix));
    const [only] = ids;
    return ids.length === 1 && only !== undefined ? this.get(only) : undefined;
  }

  /** What an image does not fit of this machine, as Docker words it; undefined when it fits. */
  platformWarning({ config }: CatalogImage): string | undefined {
    if (config.platform.architecture === '' || platformMatches(host, config.platform)) return undefined;
    return `The requested image's platform (${formatPlatform(normalizePlatform(config.platform))}) does not match the detected host platform (${formatPlatform(host)}) and no specific platform was requested`;
  }

  /** Make a change; resolves with its revision when it is durable and readers were told. */
  commit(change: CatalogChange): Promise<bigint> {
    return this.#track(this.#commit(change));
  }

  async #commit(change: CatalogChange): Promise<bigint> {
    const { undo, affected, released } = this.#apply(change);
    let revision: bigint;
    try {
      revision = await this.#store.commit((batch) => this.#write(batch, change));
    } catch (error) {
      for (const step of undo.reverse()) step();
      throw error;
    }
    if (affected.size > 0) this.#publish(revision, affected);
    await this.#collector?.collect(released);
    return revision;
  }

  async #track<T>(work: Promise<T>): Promise<T> {
    const ended = work.then(
      () => undefined,
      () => undefined,
    );
    this.#inFlight.add(ended);
    try {
      return await work;
    } finally {
      this.#inFlight.delete(ended);
    }
  }

  /** Whether a change is being written, or what one released is being removed: it may still be taken back. */
  get isChanging(): boolean {
    return this.#inFlight.size > 0;
  }

  /** Waits for the changes that were begun. */
  async settled(): Promise<void> {
    await Promise.all(this.#inFlight);
  }

  #apply(change: CatalogChange): { undo: (() => void)[]; affected: Set<Digest>; released: string[] } {
    const undo: (() => void)[] = [];
    const affected = new Set<Digest>(change.touch);
    const released: string[] = [];
    for (const record of change.putImages ?? []) {
      const before = this.#images.get(record.id)?.record;
      this.#addImage(record);
      undo.push(() => (before === undefined ? this.#dropImage(record.id) : this.#addImage(before)));
      affected.add(record.id);
    }
    const rename = (reference: Reference, imageIds: readonly Digest[]): void => {
      const before = this.imagesNamed(reference);
      this.#setName(reference, imageIds);
      undo.push(() => this.#setName(reference, before));
      for (const id of [...before, ...imageIds]) affected.add(id);
    };
    for (const named of change.name ?? []) rename(named.reference, idsOf(named));
    for (const reference of change.unname ?? []) rename(reference, []);
    for (const lease of change.putLeases ?? []) {
      this.#addLease(lease);
      undo.push(() => this.#dropLease(lease.containerId));
    }
    for (const id of change.removeLeases ?? []) {
      const before = this.#leases.get(id);
      released.push(...this.#dropLease(id));
      undo.push(() => (before === undefined ? undefined : this.#addLease(before)));
    }
    for (const id of change.removeImages ?? []) {
      const before = this.#images.get(id)?.record;
      released.push(...this.#dropImage(id));
      undo.push(() => (before === undefined ? undefined : this.#addImage(before)));
      affected.add(id);
    }
    return { undo, affected, released };
  }

  #write(batch: Batch, change: CatalogChange): void {
    for (const { id } of change.putImages ?? []) this.#aside.drop(batch, id, 'images');
    for (const { containerId } of change.putLeases ?? []) this.#aside.drop(batch, containerId, 'leases');
    for (const id of change.removeLeases ?? []) this.#aside.drop(batch, id, 'leases');
    for (const record of change.putImages ?? []) batch.put(this.#imageRecords, record.id, record);
    for (const id of change.removeImages ?? []) batch.delete(this.#imageRecords, id);
    for (const { reference, imageId, siblings } of change.name ?? []) {
      const record = siblings === undefined || siblings.length === 0 ? { imageId } : { imageId, siblings };
      batch.put(this.#referenceRecords, canonicalString(reference), record);
    }
    for (const reference of change.unname ?? []) batch.delete(this.#referenceRecords, canonicalString(reference));
    for (const lease of change.putLeases ?? []) batch.put(this.#leaseRecords, lease.containerId, lease);
    for (const id of change.removeLeases ?? []) batch.delete(this.#leaseRecords, id);
    for (const event of change.events ?? []) batch.emit(event);
    if (change.reply !== undefined) batch.reply(change.reply.requestId, change.reply.encode(batch.revision));
  }

  /** Revision of the newest change that readers were told of. */
  get revision(): bigint {
    return this.#publishedRevision;
  }

  /** Be told of every change that is durable, in the order of revisions. @returns what ends it */
  onChange(listener: ChangeListener): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  #publish(revision: bigint, affected: ReadonlySet<Digest>): void {
    if (revision > this.#publishedRevision) this.#publishedRevision = revision;
    const changes = [...affected].map((id) => [id, this.get(id)] as const);
    for (const listener of [...this.#listeners]) listener(this.#publishedRevision, changes);
  }

  /** Keep layers and blobs from being collected until `release`. */
  hold(): Hold {
    return new Hold(this.#counts, (released) => {
      const collector = this.#collector;
      return collector === undefined ? undefined : this.#track(collector.collect(released));
    });
  }

  /** Whether any image, container or running operation needs the layer. */
  usesLayer(chainId: string): boolean {
    return this.#counts.isUsed(layerKey(chainId));
  }

  usesBlob(digest: string): boolean {
    return this.#counts.isUsed(blobKey(digest));
  }

  #addImage(record: ImageRecord): void {
    const known = this.#images.get(record.id);
    const config = known?.config ?? parseImageConfig(Buffer.from(record.configJson));
    this.#counts.retain(keysOf(record));
    if (known !== undefined) {
      this.#counts.release(keysOf(known.record));
      known.record = record;
      return;
    }
    const entry: Entry = { record, config, references: new Map(), sorted: undefined, leases: new Map() };
    for (const lease of this.#leases.values()) {
      if (leasedImages(lease).some(({ imageId }) => imageId === record.id)) entry.leases.set(lease.containerId, lease);
    }
    for (const [key, { reference, imageIds }] of this.#references) {
      if (imageIds.includes(record.id)) entry.references.set(key, reference);
    }
    this.#images.set(record.id, entry);
  }

  #dropImage(id: Digest): string[] {
    const entry = this.#images.get(id);
    if (entry === undefined) return [];
    this.#images.delete(id);
    return this.#counts.release(keysOf(entry.record));
  }

  #setName(reference: Reference, imageIds: readonly Digest[]): void {
    const key = canonicalString(reference);
    for (const id of this.#references.get(key)?.imageIds ?? []) {
      const entry = this.#images.get(id);
      if (entry?.references.delete(key) === true) entry.sorted = undefined;
    }
    if (imageIds.length === 0) {
      this.#references.delete(key);
      return;
    }
    this.#references.set(key, { reference, imageIds });
    for (const id of imageIds) {
      const entry = this.#images.get(id);
      if (entry === undefined) continue;
      entry.references.set(key, reference);
      entry.sorted = undefined;
    }
  }

  /** Names are sorted when somebody asks: an image may have thousands, and each of them comes with a change. */
  #view(entry: Entry): CatalogImage {
    const { record, config, leases } = entry;
    const sorted = (): readonly (readonly [string, Reference])[] =>
      (entry.sorted ??= [...entry.references].sort(([a], [b]) => (a < b ? -1 : 1)));
    const isSecondary = (key: string): boolean => {
      const imageIds = this.#references.get(key)?.imageIds ?? [];
      return imageIds.length > 1 && this.#best(imageIds, host) !== record.id;
    };
    return {
      record,
      config,
      get references() {
        return sorted().map(([, reference]) => reference);
      },
      get secondary() {
        return sorted().flatMap(([key, reference]) => (isSecondary(key) ? [reference] : []));
      },
      leases: [...leases.values()],
    };
  }

  #addLease(lease: LeaseRecord): void {
    this.#dropLease(lease.containerId);
    this.#leases.set(lease.containerId, lease);
    for (const { imageId } of leasedImages(lease)) this.#images.get(imageId)?.leases.set(lease.containerId, lease);
    this.#counts.retain(leasedLayers(lease).map(layerKey));
  }

  #dropLease(containerId: string): string[] {
    const lease = this.#leases.get(containerId);
    if (lease === undefined) return [];
    this.#leases.delete(containerId);
    for (const { imageId } of leasedImages(lease)) this.#images.get(imageId)?.leases.delete(containerId);
    return this.#counts.release(leasedLayers(lease).map(layerKey));
  }
}

/** What one operation (a pull, a load) needs while it runs. */
export class Hold {
  readonly #counts: UseCounts;
  readonly #onRelease: (released: string[]) => Promise<void> | undefined;
  #keys: string[] = [];

  constructor(counts: UseCounts, onRelease: (released: string[]) => Promise<void> | undefined) {
    this.#counts = counts;
    this.#onRelease = onRelease;
  }

  layers(chainIds: readonly string[]): void {
    this.#retain(chainIds.map(layerKey));
  }

  blobs(digests: readonly string[]): void {
    this.#retain(digests.map(blobKey));
  }

  #retain(keys: string[]): void {
    this.#counts.retain(keys);
    this.#keys.push(...keys);
  }

  /** What no record has come to need meanwhile is removed. */
  async release(): Promise<void> {
    const keys = this.#keys;
    this.#keys = [];
    await this.#onRelease(this.#counts.release(keys));
  }
}

/** With the one that was named last at the end. */
function idsOf({ imageId, siblings = [] }: ReferenceRecord): Digest[] {
  return [...siblings.filter((id) => id !== imageId), imageId];
}

function keysOf({ id, manifest, index, layers }: ImageRecord): string[] {
  return [
    ...layers.map(({ chainId }) => layerKey(chainId)),
    ...[id, manifest.digest, ...(index === null ? [] : [index.digest]), ...layers.map(({ blob }) => blob.digest)].map(
      blobKey,
    ),
  ];
}

/** Undoes `layerKey` and `blobKey`. */
export function parseUseKey(key: string): { readonly kind: 'layer' | 'blob'; readonly digest: Digest } {
  const space = key.indexOf(' ');
  return { kind: key.startsWith('layer') ? 'layer' : 'blob', digest: key.slice(space + 1) as Digest };
}
