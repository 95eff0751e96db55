import type { Batch } from './batch.js';
import { jsonCodec } from './codec.js';
import type { Collection, DamagedEntry } from './collection.js';
import type { Store } from './store.js';

/** An entry of the store that could not be decoded, kept as it was found. JSON. */
export interface AsideEntry extends Omit<DamagedEntry, 'bytes'> {
  bytesBase64: string;
  setAsideAtMs: number;
}

/** Where damaged entries are kept: under `<collection>/<key>`, until what they are of is made anew or removed. */
export class AsideEntries {
  readonly #entries: Collection<AsideEntry>;
  readonly #keys = new Set<string>();

  private constructor(store: Store) {
    this.#entries = store.collection('damaged', jsonCodec<AsideEntry>());
  }

  static async load(store: Store): Promise<AsideEntries> {
    const aside = new AsideEntries(store);
    for (const [key] of (await aside.#entries.salvage()).entries) aside.#keys.add(key);
    return aside;
  }

  /** Whether there is any of these collections. */
  has(...collections: string[]): boolean {
    return [...this.#keys].some((key) => collections.some((name) => key.startsWith(`${name}/`)));
  }

  /** Keys of those of a collection. */
  keysOf(collection: string): string[] {
    const start = `${collection}/`;
    return [...this.#keys].filter((key) => key.startsWith(start)).map((key) => key.slice(start.length));
  }

  /** In the batch that takes the entry out of its collection. */
  set(batch: Batch, from: Collection<unknown>, { bytes, ...entry }: DamagedEntry): void {
    const key = `${entry.collection}/${entry.key}`;
    batch.put(this.#entries, key, {
      ...entry,
      bytesBase64: Buffer.from(bytes).toString('base64'),
      setAsideAtMs: Date.now(),
    });
    batch.delete(from, entry.key);
    this.#keys.add(key);
  }

  /** What is left of these keys, in any collection or in the one given, is of no use any more. */
  drop(batch: Batch, key: string, collection?: string): void {
    if (this.#keys.size === 0) return;
    for (const one of this.#keys) {
      if (collection === undefined ? !one.endsWith(`/${key}`) : one !== `${collection}/${key}`) continue;
      batch.delete(this.#entries, one);
      this.#keys.delete(one);
    }
  }
}
