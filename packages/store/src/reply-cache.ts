import type { Backend, WriteOperation } from './backend.js';
import { asBuffer } from './codec.js';
import { prefixRange, replyKey, replyPrefix } from './keys.js';

export interface ReplyCacheOptions {
  keepMs?: number;
  /** Most replies kept; beyond, the oldest go. */
  maxEntries?: number;
  /** Most bytes of payload kept; beyond, the oldest go. */
  maxBytes?: number;
}

interface ReplyEntry {
  expiresAt: number;
  bytes: number;
}

// Expired entries deleted per commit.
const expireStep = 16;

/**
 * What was answered to a mutating call, by its request id: a repeated call gets the same answer and changes nothing.
 * Written in the batch of the change, kept for 10 minutes, and bounded.
 */
export class ReplyCache {
  readonly #backend: Backend;
  readonly #keepMs: number;
  readonly #maxEntries: number;
  readonly #maxBytes: number;
  readonly #now: () => number;
  /** Oldest first: a Map keeps the order of insertion, and all entries live equally long. */
  readonly #entries = new Map<string, ReplyEntry>();
  #bytes = 0;

  private constructor(backend: Backend, options: ReplyCacheOptions, now: () => number) {
    this.#backend = backend;
    this.#keepMs = options.keepMs ?? 600_000;
    this.#maxEntries = options.maxEntries ?? 10_000;
    this.#maxBytes = options.maxBytes ?? 16 << 20;
    this.#now = now;
  }

  /** Read which replies there are; the payloads stay on the disk. */
  static async load(
    backend: Backend,
    options: ReplyCacheOptions = {},
    now: () => number = Date.now,
  ): Promise<ReplyCache> {
    const cache = new ReplyCache(backend, options, now);
    const found: [string, ReplyEntry][] = [];
    for await (const [key, value] of backend.entries(prefixRange(replyPrefix))) {
      found.push([key.toString('utf8', replyPrefix.length), { expiresAt: expiryOf(value), bytes: value.length }]);
    }
    for (const [requestId, entry] of found.sort((a, b) => a[1].expiresAt - b[1].expiresAt))
      cache.#add(requestId, entry);
    return cache;
  }

  /** A cache with nothing in it, for a backend known to be empty. */
  static empty(backend: Backend, options: ReplyCacheOptions = {}, now: () => number = Date.now): ReplyCache {
    return new ReplyCache(backend, options, now);
  }

  get size(): number {
    return this.#entries.size;
  }

  /** The payload given to `batch.reply` for this request id, or undefined when there is none or it is too old. */
  async get(requestId: string): Promise<Uint8Array | undefined> {
    const entry = this.#entries.get(requestId);
    if (entry === undefined || entry.expiresAt <= this.#now()) return undefined;
    const value = await this.#backend.get(replyKey(requestId));
    return value?.subarray(8);
  }

  /** Operations that put `replies` into the batch of their change, and take out what is too old or too much. */
  append(replies: ReadonlyMap<string, Uint8Array>): WriteOperation[] {
    const operations: WriteOperation[] = [];
    const now = this.#now();
    for (const [requestId, payload] of replies) {
      const value = Buffer.allocUnsafe(8 + payload.length);
      value.writeDoubleBE(now + this.#keepMs, 0);
      value.set(asBuffer(payload), 8);
      operations.push({ type: 'put', key: replyKey(requestId), value });
    }
    let removed = 0;
    for (const [requestId, entry] of this.#entries) {
      const isTooMuch = this.#entries.size > this.#maxEntries || this.#bytes > this.#maxBytes;
      if (!isTooMuch && (entry.expiresAt > now || removed >= expireStep)) break;
      this.#entries.delete(requestId);
      this.#bytes -= entry.bytes;
      removed += 1;
      if (!replies.has(requestId)) operations.push({ type: 'del', key: replyKey(requestId) });
    }
    return operations;
  }

  /** The batch with `replies` is durable. */
  appended(replies: ReadonlyMap<string, Uint8Array>): void {
    const expiresAt = this.#now() + this.#keepMs;
    for (const [requestId, payload] of replies) this.#add(requestId, { expiresAt, bytes: payload.length + 8 });
  }

  #add(requestId: string, entry: ReplyEntry): void {
    const before = this.#entries.get(requestId);
    if (before !== undefined) {
      this.#bytes -= before.bytes;
      this.#entries.delete(requestId);
    }
    this.#entries.set(requestId, entry);
    this.#bytes += entry.bytes;
  }
}

function expiryOf(value: Buffer): number {
  return value.length < 8 ? 0 : value.readDoubleBE(0);
}
