import { messageOf } from '@flotilla/errors';
import type { Backend } from './backend.js';
import type { Codec } from './codec.js';
import { checkKey, prefixRange } from './keys.js';

/** Which entries: keys that begin with `prefix`, from `gte` (included) to `lt` (excluded), compared as UTF-8 bytes. */
export interface EntryRange {
  prefix?: string;
  gte?: string;
  lt?: string;
  reverse?: boolean;
  limit?: number;
}

/** Values of one type under text keys. Read here; written only through a batch. */
export interface Collection<T> {
  readonly name: string;
  get(key: string): Promise<T | undefined>;
  /** In key order, from a snapshot taken at the first step. */
  entries(range?: EntryRange): AsyncIterable<[string, T]>;
  all(): Promise<[string, T][]>;
  /** As `all`, but what cannot be decoded comes apart instead of ending it. */
  salvage(): Promise<{ entries: [string, T][]; damaged: DamagedEntry[] }>;
}

/** An entry that cannot be decoded, as it is stored. */
export interface DamagedEntry {
  collection: string;
  key: string;
  bytes: Uint8Array;
  reason: string;
}

export class StoredCollection<T> implements Collection<T> {
  readonly name: string;
  readonly codec: Codec<T>;
  readonly #prefix: string;
  readonly #backend: Backend;

  constructor(backend: Backend, name: string, codec: Codec<T>) {
    this.name = name;
    this.codec = codec;
    this.#prefix = `d!${name}!`;
    this.#backend = backend;
  }

  keyOf(key: string): Buffer {
    checkKey(key);
    return Buffer.from(this.#prefix + key);
  }

  async get(key: string): Promise<T | undefined> {
    const value = await this.#backend.get(this.keyOf(key));
    return value === undefined ? undefined : this.codec.decode(value);
  }

  async *entries(range: EntryRange = {}): AsyncIterable<[string, T]> {
    let { gte, lt } = prefixRange(this.#prefix + (range.prefix ?? ''));
    if (range.gte !== undefined) gte = later(gte, this.keyOf(range.gte));
    if (range.lt !== undefined) lt = earlier(lt, this.keyOf(range.lt));
    if (Buffer.compare(gte, lt) >= 0 || range.limit === 0) return;
    for await (const [key, value] of this.#stored(gte, lt, range)) yield [key, this.codec.decode(value)];
  }

  async all(): Promise<[string, T][]> {
    const entries: [string, T][] = [];
    for await (const entry of this.entries()) entries.push(entry);
    return entries;
  }

  async salvage(): Promise<{ entries: [string, T][]; damaged: DamagedEntry[] }> {
    const entries: [string, T][] = [];
    const damaged: DamagedEntry[] = [];
    const { gte, lt } = prefixRange(this.#prefix);
    for await (const [key, bytes] of this.#stored(gte, lt, {})) {
      try {
        entries.push([key, this.codec.decode(bytes)]);
      } catch (error) {
        damaged.push({ collection: this.name, key, bytes, reason: messageOf(error) });
      }
    }
    return { entries, damaged };
  }

  async *#stored(gte: Buffer, lt: Buffer, range: EntryRange): AsyncIterable<[string, Uint8Array]> {
    const limits = {
      ...(range.reverse === undefined ? {} : { reverse: range.reverse }),
      ...(range.limit === undefined ? {} : { limit: range.limit }),
    };
    for await (const [key, value] of this.#backend.entries({ gte, lt, ...limits })) {
      yield [key.toString('utf8', Buffer.byteLength(this.#prefix)), value];
    }
  }
}

const later = (a: Buffer, b: Buffer) => (Buffer.compare(a, b) > 0 ? a : b);
const earlier = (a: Buffer, b: Buffer) => (Buffer.compare(a, b) < 0 ? a : b);
