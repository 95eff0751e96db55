import { createReadStream } from 'node:fs';
import { link, mkdir, readdir, rename, rm, stat, utimes } from 'node:fs/promises';
import { join } from 'node:path';
import { digestAlgorithm, digestHex } from '@flotilla/oci';
import type { Digest } from '@flotilla/oci';
import { hasCode } from '@flotilla/sys';

export interface BlobCacheOptions {
  /** The service's own directory. */
  readonly blobsDir: string;
  /** Where links for other services are made; on the same file system. */
  readonly exchangeDir: string;
  /** Complete blobs are kept up to this, least recently used first out; partial ones too. */
  readonly maxBytes: number;
}

const staleExchangeMs = 10 * 60_000;
/** A receiver takes its link at once. */
const untakenMs = 2 * 60_000;

/**
 * Blobs by digest: `complete/<hex>` are verified, `partial/<hex>` wait to be resumed. What is linked into the exchange
 * directory belongs to whoever asked for it.
 */
export class BlobCache {
  readonly #complete: string;
  readonly #partial: string;
  readonly #options: BlobCacheOptions;
  readonly #inUse = new Map<string, number>();

  private constructor(options: BlobCacheOptions) {
    this.#options = options;
    this.#complete = join(options.blobsDir, 'complete');
    this.#partial = join(options.blobsDir, 'partial');
  }

  static async open(options: BlobCacheOptions): Promise<BlobCache> {
    const cache = new BlobCache(options);
    for (const directory of [cache.#complete, cache.#partial, options.exchangeDir]) {
      await mkdir(directory, { recursive: true, mode: 0o700 });
    }
    await cache.#sweepExchange();
    await cache.evict();
    return cache;
  }

  /** Size of a complete blob, undefined if it is not here. */
  async size(digest: Digest): Promise<number | undefined> {
    try {
      return (await stat(this.#completePath(digest))).size;
    } catch (error) {
      if (hasCode(error, 'ENOENT')) return undefined;
      throw error;
    }
  }

  /** File to write the blob into, kept between tries. */
  partialPath(digest: Digest): string {
    return join(this.#partial, fileName(digest));
  }

  /** While `run` runs the blob is not evicted. */
  async pinned<T>(digest: Digest, run: () => Promise<T>): Promise<T> {
    const name = fileName(digest);
    this.#inUse.set(name, (this.#inUse.get(name) ?? 0) + 1);
    try {
      return await run();
    } finally {
      const users = (this.#inUse.get(name) ?? 1) - 1;
      if (users === 0) this.#inUse.delete(name);
      else this.#inUse.set(name, users);
    }
  }

  /** A verified partial file becomes complete. */
  async complete(digest: Digest): Promise<void> {
    await rename(this.partialPath(digest), this.#completePath(digest));
  }

  /** Hard link in the exchange directory; the receiver renames it into its own store. */
  async handOver(digest: Digest, linkName: string): Promise<string> {
    const path = join(this.#options.exchangeDir, linkName);
    const from = this.#completePath(digest);
    await link(from, path);
    const now = new Date();
    await utimes(from, now, now);
    setTimeout(() => void this.drop(path), untakenMs).unref();
    return path;
  }

  /** Remove a link that nobody has taken; one that was taken is elsewhere by now. */
  async drop(path: string): Promise<void> {
    await rm(path, { force: true });
  }

  /** Remove a complete blob, unless somebody fetches it just now. */
  async forget(digest: Digest): Promise<void> {
    if (!this.#inUse.has(fileName(digest))) await rm(this.#completePath(digest), { force: true });
  }

  /** Bytes of a complete blob. */
  read(digest: Digest): AsyncIterable<Buffer> {
    return readChunks(this.#completePath(digest));
  }

  /** Bytes of a link that `handOver` made, which goes. */
  async *takeBack(path: string): AsyncGenerator<Buffer> {
    try {
      yield* readChunks(path);
    } finally {
      await rm(path, { force: true });
    }
  }

  /** Remove the least recently used blobs until the rest fits. */
  async evict(): Promise<void> {
    const entries: { path: string; size: number; usedMs: number }[] = [];
    for (const directory of [this.#complete, this.#partial]) {
      for (const name of await readdir(directory)) {
        if (this.#inUse.has(name)) continue;
        const path = join(directory, name);
        const info = await stat(path).catch(() => undefined);
        if (info !== undefined) entries.push({ path, size: info.size, usedMs: info.mtimeMs });
      }
    }
    entries.sort((a, b) => a.usedMs - b.usedMs);
    let total = entries.reduce((sum, { size }) => sum + size, 0);
    for (const { path, size } of entries) {
      if (total <= this.#options.maxBytes) return;
      await rm(path, { force: true });
      total -= size;
    }
  }

  #completePath(digest: Digest): string {
    return join(this.#complete, fileName(digest));
  }

  /** Links that nobody took: their receiver died. A fresh one may be on its way. */
  async #sweepExchange(): Promise<void> {
    for (const name of await readdir(this.#options.exchangeDir)) {
      // Links for a push are the image service's, and a push may take long.
      if (name.startsWith('push-')) continue;
      const path = join(this.#options.exchangeDir, name);
      const info = await stat(path).catch(() => undefined);
      if (info?.isFile() === true && Date.now() - info.ctimeMs > staleExchangeMs) await rm(path, { force: true });
    }
  }
}

const fileName = (digest: Digest): string => `${digestAlgorithm(digest)}-${digestHex(digest)}`;

async function* readChunks(path: string): AsyncGenerator<Buffer> {
  for await (const chunk of createReadStream(path, { highWaterMark: 256 * 1024 })) yield chunk as Buffer;
}
