import type { Logger } from '@flotilla/log';
import { repositoryName } from '@flotilla/oci';
import type { Digest, Reference } from '@flotilla/oci';
import { jsonCodec } from '@flotilla/store';
import type { Collection, Store } from '@flotilla/store';
import type { Catalog, CatalogImage } from '../catalog/catalog.js';

/** Where a layer's blob was seen; the key is its digest. */
interface BlobRepositoriesRecord {
  /** `domain/path`, the latest last. */
  readonly repositories: readonly string[];
}

export interface BlobRepositoriesOptions {
  readonly log: Logger;
  readonly maxBlobs?: number;
  readonly maxPerBlob?: number;
}

/**
 * Which repositories have a layer's blob, so that a push to another one of the same registry mounts it instead of
 * sending it. An image's digest name (`repository@sha256:...`) says so: every one that the catalog gets is noted, and
 * stays noted when the name goes, for what was made from the image. A hint only: a wrong one costs one request.
 */
export class BlobRepositories {
  readonly #store: Store;
  readonly #records: Collection<BlobRepositoriesRecord>;
  readonly #known = new Map<string, readonly string[]>();
  readonly #log: Logger;
  readonly #maxBlobs: number;
  readonly #maxPerBlob: number;

  private constructor(store: Store, { log, maxBlobs = 20_000, maxPerBlob = 20 }: BlobRepositoriesOptions) {
    this.#store = store;
    this.#records = store.collection('blob-repositories', jsonCodec<BlobRepositoriesRecord>());
    this.#log = log;
    this.#maxBlobs = maxBlobs;
    this.#maxPerBlob = maxPerBlob;
  }

  /** Reads what is noted, forgets blobs that `isKept` denies, and follows the catalog from now on. */
  static async open(
    store: Store,
    catalog: Catalog,
    isKept: (digest: Digest) => boolean,
    options: BlobRepositoriesOptions,
  ): Promise<BlobRepositories> {
    const found = new BlobRepositories(store, options);
    const gone: string[] = [];
    // A note that cannot be read is no loss: the blob is uploaded again.
    const { entries, damaged } = await found.#records.salvage();
    gone.push(...damaged.map(({ key }) => key));
    for (const [digest, { repositories }] of entries) {
      if (isKept(digest as Digest)) found.#known.set(digest, repositories);
      else gone.push(digest);
    }
    if (gone.length > 0) {
      await store.commit((batch) => {
        for (const digest of gone) batch.delete(found.#records, digest);
      });
    }
    catalog.onChange((_, changes) => {
      for (const [, image] of changes) if (image !== undefined) found.#note(image);
    });
    return found;
  }

  /** Repositories of the registry but this one, the latest first. */
  mountCandidates(digest: Digest, target: Reference): string[] {
    const own = repositoryName(target);
    return [...(this.#known.get(digest) ?? [])]
      .reverse()
      .filter((name) => name !== own && name.startsWith(`${target.domain}/`));
  }

  #note({ record, references }: CatalogImage): void {
    const names = references.filter(({ digest }) => digest !== undefined).map(repositoryName);
    const changed = new Map<string, readonly string[]>();
    for (const { blob } of record.layers) {
      const before = this.#known.get(blob.digest) ?? [];
      const added = names.filter((name) => !before.includes(name));
      if (added.length === 0) continue;
      const repositories = [...before, ...new Set(added)].slice(-this.#maxPerBlob);
      this.#known.set(blob.digest, repositories);
      changed.set(blob.digest, repositories);
    }
    if (changed.size > 0) this.#write(changed);
  }

  #write(changed: ReadonlyMap<string, readonly string[]>): void {
    const dropped: string[] = [];
    for (const digest of this.#known.keys()) {
      if (this.#known.size <= this.#maxBlobs) break;
      this.#known.delete(digest);
      dropped.push(digest);
    }
    this.#store
      .commit((batch) => {
        for (const [digest, repositories] of changed) batch.put(this.#records, digest, { repositories });
        for (const digest of dropped) batch.delete(this.#records, digest);
      })
      .catch((err: unknown) => this.#log.warn({ err }, 'repositories of blobs could not be noted'));
  }
}
