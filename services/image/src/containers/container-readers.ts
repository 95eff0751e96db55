import { cancelled, conflict, notFound } from '@flotilla/errors';
import type { Catalog } from '../catalog/catalog.js';
import type { LeaseRecord } from '../catalog/records.js';
import type { LayerStore, LayerTree } from '../layers/index.js';

/** One reading of what a container has on the disk. */
export interface ContainerReading {
  readonly lease: LeaseRecord;
  readonly tree: LayerTree;
  /** Fires when the caller leaves or the container is removed. */
  readonly signal: AbortSignal;
}

/** Who reads the layers of containers (export, commit, changes): a removal ends them first, so that nobody reads half a tree. */
export class ContainerReaders {
  readonly #catalog: Catalog;
  readonly #layers: LayerStore;
  readonly #running = new Map<string, Set<{ stop: AbortController; ended: Promise<void> }>>();

  constructor(catalog: Catalog, layers: LayerStore) {
    this.#catalog = catalog;
    this.#layers = layers;
  }

  /**
   * Begin to read; `end` must be called when nothing is read any more.
   *
   * @throws EngineError `notFound` `No such container: x`.
   */
  begin(containerId: string, signal: AbortSignal): ContainerReading & { readonly end: () => void } {
    const lease = this.#catalog.lease(containerId);
    if (lease === undefined) throw notFound(`No such container: ${containerId}`);
    const tree = this.#layers.writable.tree(containerId, lease.chainIds, lease.driver);
    const stop = new AbortController();
    let end = (): void => undefined;
    const ended = new Promise<void>((resolve) => (end = resolve));
    const reader = { stop, ended };
    const readers = this.#running.get(containerId) ?? new Set();
    readers.add(reader);
    this.#running.set(containerId, readers);
    return {
      lease,
      tree,
      signal: AbortSignal.any([signal, stop.signal]),
      end: () => {
        readers.delete(reader);
        if (readers.size === 0 && this.#running.get(containerId) === readers) this.#running.delete(containerId);
        end();
      },
    };
  }

  /** Read with `work`. @throws EngineError as `work`; `conflict` when the container is removed meanwhile. */
  async read<T>(containerId: string, signal: AbortSignal, work: (reading: ContainerReading) => Promise<T>): Promise<T> {
    const reading = this.begin(containerId, signal);
    try {
      return await work(reading);
    } catch (error) {
      throw reasonOf(reading, signal, error);
    } finally {
      reading.end();
    }
  }

  /** As `read`, for what comes in pieces. */
  async *stream<T>(
    containerId: string,
    signal: AbortSignal,
    work: (reading: ContainerReading) => AsyncIterable<T>,
  ): AsyncGenerator<T> {
    const reading = this.begin(containerId, signal);
    try {
      yield* work(reading);
    } catch (error) {
      throw reasonOf(reading, signal, error);
    } finally {
      reading.end();
    }
  }

  /** End everybody who reads the container; settles when they have ended. */
  async endAll(containerId: string): Promise<void> {
    const readers = [...(this.#running.get(containerId) ?? [])];
    for (const { stop } of readers) stop.abort(cancelled('the container is removed'));
    await Promise.all(readers.map(({ ended }) => ended));
  }
}

function reasonOf(reading: ContainerReading, signal: AbortSignal, error: unknown): unknown {
  if (!reading.signal.aborted || signal.aborted) return error;
  return conflict(`container ${reading.lease.containerId} was removed meanwhile`, { cause: error });
}
