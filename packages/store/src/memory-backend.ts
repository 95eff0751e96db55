import { unavailable } from '@flotilla/errors';
import type { Backend, KeyRange, WriteOperation } from './backend.js';

/** What a memory store keeps between one opening and the next: give the same one to `Store.memory` to play a restart. */
export class MemoryDisk {
  /** Sorted by key, bytewise. Replaced, never changed, so that a reader keeps its snapshot. */
  entries: readonly (readonly [Buffer, Buffer])[] = [];
}

/** The memory twin of LevelDB, for tests: same order, same snapshots, same atomicity. */
export class MemoryBackend implements Backend {
  readonly #disk: MemoryDisk;
  #closed = false;

  constructor(disk: MemoryDisk) {
    this.#disk = disk;
  }

  async get(key: Buffer): Promise<Buffer | undefined> {
    await this.#turn();
    const { entries } = this.#disk;
    const found = entries[lowerBound(entries, key)];
    return found?.[0].equals(key) === true ? found[1] : undefined;
  }

  async *entries(range: KeyRange): AsyncIterable<[Buffer, Buffer]> {
    await this.#turn();
    const { entries } = this.#disk;
    const selected = entries.slice(lowerBound(entries, range.gte), lowerBound(entries, range.lt));
    if (range.reverse === true) selected.reverse();
    for (const [key, value] of selected.slice(0, range.limit)) yield [key, value];
  }

  async write(operations: WriteOperation[]): Promise<void> {
    await this.#turn();
    const entries = [...this.#disk.entries];
    for (const operation of operations) {
      const at = lowerBound(entries, operation.key);
      const exists = entries[at]?.[0].equals(operation.key) === true;
      if (operation.type === 'put') {
        // Copied: the caller may reuse its buffer, as it may with LevelDB.
        entries.splice(at, exists ? 1 : 0, [Buffer.from(operation.key), Buffer.from(operation.value)]);
      } else if (exists) {
        entries.splice(at, 1);
      }
    }
    this.#disk.entries = entries;
  }

  recover(): Promise<void> {
    return Promise.resolve();
  }

  close(): Promise<void> {
    this.#closed = true;
    return Promise.resolve();
  }

  // LevelDB never answers in the same turn of the event loop; code must not come to rely on the twin doing so.
  async #turn(): Promise<void> {
    if (this.#closed) throw unavailable('the store is closed');
    await new Promise(setImmediate);
  }
}

function lowerBound(entries: readonly (readonly [Buffer, Buffer])[], key: Buffer): number {
  let low = 0;
  let high = entries.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    const entry = entries[middle];
    if (entry !== undefined && Buffer.compare(entry[0], key) < 0) low = middle + 1;
    else high = middle;
  }
  return low;
}
