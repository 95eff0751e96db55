import type { Batch, Codec, Collection, Store } from '@flotilla/store';

export interface RecordBounds {
  readonly maxEntries: number;
  readonly maxBytes: number;
}

/** Share of the bound that goes when it is reached, so that not every record pays for it. */
const trimShare = 0.05;

/** Records of a store's collection of which the least recently used go when there are too many. */
export class BoundedRecords<T> {
  readonly #records: Collection<T>;
  readonly #bounds: RecordBounds;
  readonly #sizeOf: (value: T) => number;
  /** Sizes by key, least recently used first. After a restart the order is that of the keys. */
  readonly #sizes = new Map<string, number>();
  #bytes = 0;

  private constructor(records: Collection<T>, bounds: RecordBounds, sizeOf: (value: T) => number) {
    this.#records = records;
    this.#bounds = bounds;
    this.#sizeOf = sizeOf;
  }

  static async open<T>(
    store: Store,
    name: string,
    codec: Codec<T>,
    bounds: RecordBounds,
    sizeOf: (value: T) => number,
  ): Promise<BoundedRecords<T>> {
    const records = new BoundedRecords(store.collection(name, codec), bounds, sizeOf);
    for await (const [key, value] of records.#records.entries()) records.#note(key, sizeOf(value));
    return records;
  }

  has(key: string): boolean {
    return this.#sizes.has(key);
  }

  async get(key: string): Promise<T | undefined> {
    const size = this.#sizes.get(key);
    if (size === undefined) return undefined;
    this.#note(key, size);
    return this.#records.get(key);
  }

  /** Add to the batch: the record, and the going of others where it is one too many. */
  put(batch: Batch, key: string, value: T): void {
    batch.put(this.#records, key, value);
    this.#note(key, this.#sizeOf(value));
    const { maxEntries, maxBytes } = this.#bounds;
    if (this.#sizes.size <= maxEntries && this.#bytes <= maxBytes) return;
    for (const [oldest, size] of this.#sizes) {
      if (this.#sizes.size <= maxEntries * (1 - trimShare) && this.#bytes <= maxBytes * (1 - trimShare)) return;
      if (oldest === key) continue;
      this.#sizes.delete(oldest);
      this.#bytes -= size;
      batch.delete(this.#records, oldest);
    }
  }

  #note(key: string, size: number): void {
    this.#bytes += size - (this.#sizes.get(key) ?? 0);
    this.#sizes.delete(key);
    this.#sizes.set(key, size);
  }
}
