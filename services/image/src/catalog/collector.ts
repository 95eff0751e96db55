import type { Logger } from '@flotilla/log';
import type { Digest } from '@flotilla/oci';
import type { ContentStore } from '../content/content-store.js';
import type { LayerStore } from '../layers/index.js';
import { parseUseKey } from './catalog.js';
import type { Catalog, Collector } from './catalog.js';
import { leasedLayers } from './records.js';

/** Removes layers and blobs that nothing needs. A failure leaves an orphan for the next start and is logged. */
export class StoreCollector implements Collector {
  readonly #catalog: Catalog;
  readonly #layers: LayerStore;
  readonly #content: ContentStore;
  readonly #log: Logger;

  constructor(catalog: Catalog, layers: LayerStore, content: ContentStore, log: Logger) {
    this.#catalog = catalog;
    this.#layers = layers;
    this.#content = content;
    this.#log = log;
  }

  /** Nothing while records are damaged: the sweep of a later start catches up. */
  async collect(keys: readonly string[]): Promise<void> {
    if (this.#catalog.mayMissRecords) return;
    for (const key of keys) {
      const { kind, digest } = parseUseKey(key);
      try {
        if (kind === 'layer') {
          if (!this.#catalog.usesLayer(digest)) await this.#layers.remove(digest);
        } else await this.#content.remove(digest, () => this.#catalog.usesBlob(digest));
      } catch (err) {
        this.#log.warn({ err, kind, digest }, 'removing unused content failed');
      }
    }
  }

  /** At start: everything on the disk that no record names. */
  async sweep(): Promise<void> {
    if (this.#catalog.mayMissRecords) {
      this.#log.warn('records of images are damaged: what nothing seems to need is kept');
      return;
    }
    const chainIds = new Set<string>();
    const blobs = new Set<string>();
    const containers = new Set<string>();
    for (const { record } of this.#catalog.all()) {
      for (const { chainId, blob } of record.layers) {
        chainIds.add(chainId);
        blobs.add(blob.digest);
      }
      const own: (Digest | undefined)[] = [record.id, record.manifest.digest, record.index?.digest];
      for (const digest of own) if (digest !== undefined) blobs.add(digest);
    }
    for (const lease of this.#catalog.leases()) {
      containers.add(lease.containerId);
      for (const chainId of leasedLayers(lease)) chainIds.add(chainId);
    }
    await this.#layers.sweep(chainIds, containers);
    await this.#content.sweep(blobs);
  }
}
