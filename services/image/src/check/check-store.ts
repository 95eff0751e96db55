import { conflict } from '@flotilla/errors';
import { checkBlobs } from './check-blobs.js';
import { checkLayers } from './check-layers.js';
import { checkLeftovers } from './check-leftovers.js';
import { checkRecords } from './check-records.js';
import type { StoreCheckDeps, StoreCheckOptions, StoreFinding } from './store-finding.js';

/** What was looked at. */
export interface StoreSummary {
  readonly images: number;
  readonly references: number;
  readonly blobs: number;
  readonly blobBytes: number;
  readonly layers: number;
  readonly containerLayers: number;
  readonly quarantined: number;
}

/** Compares the stores with the records, one check at a time, while everything else goes on. */
export class StoreCheck {
  readonly #deps: StoreCheckDeps;
  #isRunning = false;

  constructor(deps: StoreCheckDeps) {
    this.#deps = deps;
  }

  /** @throws EngineError `conflict` while another check runs. */
  async *run(options: StoreCheckOptions, signal: AbortSignal): AsyncGenerator<StoreFinding> {
    if (this.#isRunning) throw conflict('another check of the images is running');
    this.#isRunning = true;
    try {
      // Blobs first: what is put aside there is no source for a layer.
      yield* checkBlobs(this.#deps, options, signal);
      yield* checkLayers(this.#deps, options, signal);
      yield* checkRecords(this.#deps, options, signal);
      yield* checkLeftovers(this.#deps, options, signal);
    } finally {
      this.#isRunning = false;
    }
  }

  async summary(): Promise<StoreSummary> {
    const { catalog, content, layers } = this.#deps;
    const digests = content.digests();
    return {
      images: catalog.all().length,
      references: catalog.referenceCount,
      blobs: digests.length,
      blobBytes: digests.reduce((sum, digest) => sum + (content.sizeOf(digest) ?? 0), 0),
      layers: layers.chainIds().length,
      containerLayers: catalog.leases().length,
      quarantined: await content.quarantined(),
    };
  }
}
