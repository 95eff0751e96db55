import type { Digest, Platform } from '@flotilla/oci';
import type { Logger } from '@flotilla/log';
import { KeyedLocks } from '@flotilla/store';
import type { Catalog, CatalogImage } from '../catalog/catalog.js';
import { leasedImages } from '../catalog/records.js';
import type { LeasedImage, LeaseRecord } from '../catalog/records.js';
import type { ContentStore } from '../content/content-store.js';
import type { ContainerReaders } from './container-readers.js';
import type { ContainerLayer, LayerStore, StorageDriver } from '../layers/index.js';
import { restoreLayer } from './restore-layer.js';

export interface ContainerLayerDeps {
  readonly catalog: Catalog;
  readonly content: ContentStore;
  readonly layers: LayerStore;
  readonly readers: ContainerReaders;
  /** For new containers; each keeps the one that it was made with. */
  readonly driver: StorageDriver;
  readonly log: Logger;
  readonly now: () => Date;
}

export interface PrepareRequest {
  readonly containerId: string;
  readonly containerName: string;
  readonly image: string;
  readonly platform: Platform | undefined;
  /** Further images, that the container mounts. */
  readonly mountedImages: readonly string[];
  readonly requestId: string;
  /** The answer, kept for a repeated request. */
  readonly encode: (prepared: PreparedLayer, revision: bigint) => Uint8Array;
}

export interface PreparedLayer extends ContainerLayer {
  /** undefined: removed by force since; the layers stay. */
  readonly image: CatalogImage | undefined;
  readonly warnings: readonly string[];
  /** In the order of the request. */
  readonly mounted: readonly MountedImage[];
}

/** An image whose content a container mounts. */
export interface MountedImage {
  readonly imageId: Digest;
  /** Topmost first. */
  readonly lower: readonly string[];
}

/** A lease younger than this may belong to a container that the list of live ones does not know yet. */
const reconcileGraceMs = 30_000;

/** Leases of containers on images, with the layers that the containers write to. */
export class ContainerLayers {
  readonly #deps: ContainerLayerDeps;
  readonly #locks = new KeyedLocks();
  #restoring = Promise.resolve();

  constructor(deps: ContainerLayerDeps) {
    this.#deps = deps;
  }

  /** Of new containers. */
  get driver(): StorageDriver {
    return this.#deps.driver;
  }

  /**
   * Lease an image and make the container's layer; a second call finds the first's, whatever the name means by now.
   *
   * @throws EngineError `notFound` `No such image: x`.
   */
  prepare(request: PrepareRequest): Promise<{ prepared: PreparedLayer; revision: bigint }> {
    return this.#locks.run(request.containerId, async () => {
      const { catalog, driver, layers, now } = this.#deps;
      const { containerId, containerName } = request;
      const existing = catalog.lease(containerId);
      if (existing !== undefined) {
        const layer = await layers.writable.create(containerId, existing.chainIds, existing.driver);
        return {
          prepared: {
            ...layer,
            image: catalog.get(existing.imageId),
            warnings: [],
            mounted: (existing.mounts ?? []).map((it) => this.#mounted(it)),
          },
          revision: catalog.revision,
        };
      }
      const image = catalog.resolve(request.image, request.platform);
      const mountedImages = request.mountedImages.map((name) => catalog.resolve(name));
      const [{ chainIds }, ...mounts] = [leasedOf(image), ...mountedImages.map(leasedOf)] as const;
      const warning = request.platform === undefined ? catalog.platformWarning(image) : undefined;
      const hold = catalog.hold();
      hold.layers([chainIds, ...mounts.map((it) => it.chainIds)].flat());
      try {
        for (const needed of [image, ...mountedImages]) await this.restoreLayers(needed);
        const layer = await layers.writable.create(containerId, chainIds, driver);
        const prepared = {
          ...layer,
          image,
          warnings: warning === undefined ? [] : [warning],
          mounted: mounts.map((it) => this.#mounted(it)),
        };
        const lease: LeaseRecord = {
          containerId,
          containerName,
          imageId: image.record.id,
          chainIds,
          createdAt: now().toISOString(),
          ...(driver === 'vfs' ? { driver } : {}),
          ...(mounts.length > 0 ? { mounts } : {}),
        };
        const revision = await catalog.commit({
          putLeases: [lease],
          reply: { requestId: request.requestId, encode: (at) => request.encode(prepared, at) },
        });
        return { prepared, revision };
      } catch (error) {
        await layers.writable.remove(containerId);
        throw error;
      } finally {
        await hold.release();
      }
    });
  }

  #mounted({ imageId, chainIds }: LeasedImage): MountedImage {
    return { imageId, lower: this.#deps.layers.mountDirs(chainIds) };
  }

  /** Remove a container's layer and lease. What is not there is fine. */
  release(
    containerId: string,
    reply?: { requestId: string; encode: (revision: bigint) => Uint8Array },
  ): Promise<bigint> {
    return this.#locks.run(containerId, async () => {
      const { catalog, layers, readers } = this.#deps;
      // Before the lease goes, and with it perhaps the layers below; nobody begins to read after that.
      await readers.endAll(containerId);
      const isLeased = catalog.lease(containerId) !== undefined || catalog.damagedLeases.includes(containerId);
      const revision = isLeased ? await catalog.commit({ removeLeases: [containerId], reply }) : catalog.revision;
      await readers.endAll(containerId);
      await layers.writable.remove(containerId);
      return revision;
    });
  }

  /** Whether the directory of a container's layer belongs to nobody; a `prepare` that runs is waited for. */
  isOrphan(containerId: string): Promise<boolean> {
    return this.#locks.run(containerId, () => Promise.resolve(this.#deps.catalog.lease(containerId) === undefined));
  }

  /** Sum of the sizes of the files that a container has changed (SizeRw). */
  changedBytes(containerId: string, signal: AbortSignal): Promise<bigint> {
    const { catalog, layers } = this.#deps;
    const lease = catalog.lease(containerId);
    return lease?.driver === 'vfs'
      ? layers.writable.changedSize(layers.writable.tree(containerId, lease.chainIds, lease.driver), signal)
      : layers.writable.size(containerId, signal);
  }

  /** Make the layer of a leased container anew, without changes. */
  async restore(containerId: string): Promise<void> {
    await this.#locks.run(containerId, async () => {
      const { catalog, layers } = this.#deps;
      const lease = catalog.lease(containerId);
      if (lease !== undefined) await layers.writable.create(containerId, lease.chainIds, lease.driver);
    });
  }

  /** Release every lease whose container is not in the list, but for very young ones; gives the released ids. */
  async reconcile(liveIds: ReadonlySet<string>): Promise<string[]> {
    const { catalog, log, now } = this.#deps;
    const oldest = now().getTime() - reconcileGraceMs;
    const gone = catalog
      .leases()
      .filter(({ containerId, createdAt }) => !liveIds.has(containerId) && Date.parse(createdAt) <= oldest)
      .map(({ containerId }) => containerId);
    // Nothing is collected while there are damaged ones.
    gone.push(...catalog.damagedLeases.filter((containerId) => !liveIds.has(containerId)));
    for (const containerId of gone) {
      await this.release(containerId);
      log.info({ containerId }, 'released the layer of a container that is gone');
    }
    return gone;
  }

  /**
   * Unpack again what a power failure took of the layers that containers have: they are mounted without asking. At start, before requests are served;
   * what cannot be unpacked is told by the check of the store.
   */
  async restoreLeased(): Promise<void> {
    const { catalog, log } = this.#deps;
    const images = new Map<Digest, CatalogImage>();
    for (const lease of catalog.leases()) {
      const { containerId } = lease;
      for (const { imageId, chainIds } of leasedImages(lease)) {
        if (!this.#lacks(chainIds)) continue;
        const image = catalog.get(imageId);
        if (image === undefined) log.error({ containerId, imageId }, 'layers of an image that was removed are lost');
        else images.set(imageId, image);
      }
    }
    await this.#restoreAll([...images.values()]);
  }

  /** As `restoreLeased` for every image, beside requests, which restore what they need themselves. */
  restoreOthers(signal: AbortSignal): void {
    this.#restoring = this.#restoreAll(this.#deps.catalog.all(), signal);
  }

  /** Resolves when nothing is unpacked again that nobody has asked for. */
  restored(): Promise<void> {
    return this.#restoring;
  }

  async #restoreAll(images: readonly CatalogImage[], signal?: AbortSignal): Promise<void> {
    const { catalog, log } = this.#deps;
    const isStopped = (): boolean => signal?.aborted === true;
    for (const image of images) {
      const { id, layers } = image.record;
      const chainIds = layers.map(({ chainId }) => chainId);
      if (isStopped() || !this.#lacks(chainIds)) continue;
      const hold = catalog.hold();
      hold.layers(chainIds);
      hold.blobs(layers.map(({ blob }) => blob.digest));
      try {
        await this.restoreLayers(image, signal);
      } catch (err) {
        if (!isStopped()) log.error({ err, imageId: id }, 'a lost layer cannot be unpacked again');
      } finally {
        await hold.release();
      }
    }
  }

  #lacks(chainIds: readonly string[]): boolean {
    return chainIds.some((chainId) => !this.#deps.layers.has(chainId));
  }

  /** Unpack again what a power failure took of an image's layers; its blobs are on the disk. */
  async restoreLayers({ record }: CatalogImage, signal?: AbortSignal): Promise<void> {
    const { layers, content, log } = this.#deps;
    let parentChainId: Digest | undefined;
    for (const layer of record.layers) {
      if (!layers.has(layer.chainId)) {
        log.warn({ imageId: record.id, chainId: layer.chainId }, 'unpacking a lost layer again');
        await restoreLayer({ layers, content }, layer, parentChainId, signal);
      }
      parentChainId = layer.chainId;
    }
  }
}

function leasedOf({ record }: CatalogImage): LeasedImage {
  return { imageId: record.id, chainIds: record.layers.map(({ chainId }) => chainId) };
}
