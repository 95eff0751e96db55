import { createReadStream } from 'node:fs';
import { link, mkdir, readFile, readdir, rename, rm, stat, statfs, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { digestAlgorithm, digestHex } from '@flotilla/oci';
import type { Digest } from '@flotilla/oci';
import { hasCode } from '@flotilla/sys';

export interface BlobCacheOptions {
  /** The service's own directory. */
  readonly blobsDir: string;
  /** Where links for other services are made; on the same file system. */
  readonly exchangeDir: string;
  /** What complete blobs may take beside those that the image service has too, least recently used first out; 0: none is kept. */
  readonly maxBytes: number;
  /** The same for what interrupted transfers left. */
  readonly maxPartialBytes: number;
}

/** What the cache takes of the disk. */
export interface CacheUsage {
  /** Complete blobs. */
  readonly blobs: number;
  /** Of these, bytes that would be free without the cache: the image service does not have them. */
  readonly ownBytes: number;
  readonly sharedBytes: number;
  /** Transfers that were interrupted and can be resumed. */
  readonly partialBlobs: number;
  readonly partialBytes: number;
}

interface Entry {
  readonly name: string;
  readonly path: string;
  readonly size: number;
  readonly usedMs: number;
  readonly isPartial: boolean;
  /** The file has another name outside the cache: it costs nothing here. */
  readonly isShared: boolean;
}

/** Of the file system, kept free of cached blobs. */
const freeShare = 0.1;
const maxSharedBlobs = 20_000;
const staleExchangeMs = 10 * 60_000;
/** A receiver takes its link at once. */
const untakenMs = 2 * 60_000;

/**
 * Blobs by digest: `complete/<hex>` are verified, `partial/<hex>` wait to be resumed. What is linked into the exchange
 * directory belongs to whoever asked for it. The directories are the index: a crash leaves nothing to repair.
 */
export class BlobCache {
  readonly #complete: string;
  readonly #partial: string;
  readonly #options: BlobCacheOptions;
  readonly #inUse = new Map<string, number>();
  /** Written before the machine was started, perhaps not to the end: their bytes are looked at again. */
  readonly #unverified = new Set<string>();
  #maxBytes: number;
  #evicting: Promise<void> | undefined;
  #evictAgain = false;

  private constructor(options: BlobCacheOptions) {
    this.#options = options;
    this.#maxBytes = options.maxBytes;
    this.#complete = join(options.blobsDir, 'complete');
    this.#partial = join(options.blobsDir, 'partial');
  }

  static async open(options: BlobCacheOptions): Promise<BlobCache> {
    const cache = new BlobCache(options);
    for (const directory of [cache.#complete, cache.#partial, options.exchangeDir]) {
      await mkdir(directory, { recursive: true, mode: 0o700 });
    }
    await cache.#sweepExchange();
    if (await isNewBoot(join(options.blobsDir, 'boot-id'))) {
      for (const name of await readdir(cache.#complete)) cache.#unverified.add(name);
    }
    cache.evictSoon();
    return cache;
  }

  get maxBytes(): number {
    return this.#maxBytes;
  }

  set maxBytes(bytes: number) {
    this.#maxBytes = bytes;
    this.evictSoon();
  }

  /** Size of a complete blob, undefined if it is not here. */
  async size(digest: Digest): Promise<number | undefined> {
    if (this.#unverified.delete(fileName(digest))) {
      // As a partial one it is hashed when it is opened, and fetched again only if it is wrong.
      await rename(this.#completePath(digest), this.partialPath(digest)).catch(() => undefined);
    }
    try {
      return (await stat(this.#completePath(digest))).size;
    } catch (error) {
      if (hasCode(error, 'ENOENT')) return undefined;
      throw error;
    }
  }

  /** Have a blob checked before it is given again: whoever shares the file found it corrupt. */
  distrust(digest: Digest): void {
    this.#unverified.add(fileName(digest));
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

  /** Hard link in the exchange directory to a file that is still growing; undefined if it no longer is. Anew each time. */
  async showPartial(digest: Digest, linkName: string): Promise<string | undefined> {
    try {
      return await this.#link(this.partialPath(digest), linkName);
    } catch (error) {
      if (hasCode(error, 'ENOENT')) return undefined;
      throw error;
    }
  }

  async #link(from: string, linkName: string): Promise<string> {
    const path = join(this.#options.exchangeDir, linkName);
    await rm(path, { force: true });
    await link(from, path);
    return path;
  }

  /** Hard link in the exchange directory; the receiver renames it into its own store. */
  async handOver(digest: Digest, linkName: string): Promise<string> {
    const from = this.#completePath(digest);
    const path = await this.#link(from, linkName);
    const now = new Date();
    await utimes(from, now, now);
    setTimeout(() => {
      // What cannot be removed now is swept at the next start.
      this.drop(path).catch(() => undefined);
    }, untakenMs).unref();
    return path;
  }

  /** Remove a link that nobody has taken; one that was taken is elsewhere by now. */
  async drop(path: string): Promise<void> {
    await rm(path, { force: true });
  }

  /** Bytes of a complete blob from `start` to before `end`. */
  read(digest: Digest, start = 0, end = Infinity): AsyncIterable<Buffer> {
    return readChunks(this.#completePath(digest), { start, end: end - 1 });
  }

  /** Bytes of a link that `handOver` made, which goes. */
  async *takeBack(path: string): AsyncGenerator<Buffer> {
    try {
      yield* readChunks(path);
    } finally {
      await rm(path, { force: true });
    }
  }

  /** Begin removing what is over the bounds. Calls while it runs are one more round. */
  evictSoon(): void {
    if (this.#evicting !== undefined) {
      this.#evictAgain = true;
      return;
    }
    this.#evicting = this.#evict(0)
      // A file that went meanwhile, a directory that is gone: the next round tries again.
      .catch(() => undefined)
      .then(() => {
        this.#evicting = undefined;
        if (this.#evictAgain) {
          this.#evictAgain = false;
          this.evictSoon();
        }
      });
  }

  /** Let `bytes` more fit on the file system, as far as removing cached blobs can do that. */
  async makeRoom(bytes: number): Promise<void> {
    const { bavail, bsize, blocks } = await statfs(this.#complete);
    if (bavail * bsize - bytes < blocks * bsize * freeShare) await this.#evict(bytes);
  }

  /** Resolves when no eviction runs. */
  async settled(): Promise<void> {
    while (this.#evicting !== undefined) await this.#evicting;
  }

  async usage(): Promise<CacheUsage> {
    const usage = { blobs: 0, ownBytes: 0, sharedBytes: 0, partialBlobs: 0, partialBytes: 0 };
    for (const { name, size, isPartial, isShared } of await this.#scan()) {
      if (isPartial) {
        // What is being written is nobody's leftover.
        if (this.#inUse.has(name)) continue;
        usage.partialBlobs += 1;
        usage.partialBytes += size;
      } else {
        usage.blobs += 1;
        usage[isShared ? 'sharedBytes' : 'ownBytes'] += size;
      }
    }
    return usage;
  }

  /** Remove interrupted transfers, and with `complete` the blobs that only the cache has, unless used after `beforeMs`; gives the bytes. */
  async prune({ complete, beforeMs }: { complete: boolean; beforeMs: number }): Promise<number> {
    let bytes = 0;
    for (const entry of await this.#scan()) {
      const isWanted = entry.isPartial || (complete && !entry.isShared);
      if (isWanted && entry.usedMs < beforeMs) bytes += await this.#remove(entry);
    }
    return bytes;
  }

  /** Removes the least recently used blobs until the rest keeps the bounds and `need` bytes fit on the file system. */
  async #evict(need: number): Promise<void> {
    const { bavail, bsize, blocks } = await statfs(this.#complete);
    const entries = await this.#scan();
    const total = { complete: 0, partial: 0, shared: 0 };
    for (const { size, isPartial, isShared } of entries) {
      if (isPartial) total.partial += size;
      else if (isShared) total.shared += 1;
      else total.complete += size;
    }
    const own = total.complete + total.partial;
    let overDisk = need + blocks * bsize * freeShare - bavail * bsize;
    if (own === 0 && total.shared <= maxSharedBlobs && this.#maxBytes > 0) return;
    entries.sort((a, b) => a.usedMs - b.usedMs);
    for (const entry of entries) {
      const { isPartial, isShared, size } = entry;
      if (isShared) {
        if (this.#maxBytes === 0 || total.shared > maxSharedBlobs)
          total.shared -= (await this.#remove(entry)) > 0 ? 1 : 0;
        continue;
      }
      const isOver = isPartial
        ? total.partial > this.#options.maxPartialBytes
        : total.complete > this.#maxBytes || this.#maxBytes === 0;
      if (!isOver && overDisk <= 0) continue;
      const removed = await this.#remove(entry);
      overDisk -= removed;
      if (removed > 0) total[isPartial ? 'partial' : 'complete'] -= size;
    }
  }

  async #scan(): Promise<Entry[]> {
    const entries: Entry[] = [];
    for (const directory of [this.#complete, this.#partial]) {
      const isPartial = directory === this.#partial;
      for (const name of await readdir(directory)) {
        const path = join(directory, name);
        const info = await stat(path).catch(() => undefined);
        if (info === undefined) continue;
        entries.push({
          name,
          path,
          size: info.size,
          usedMs: info.mtimeMs,
          isPartial,
          isShared: !isPartial && info.nlink > 1,
        });
      }
    }
    return entries;
  }

  /** Gives the bytes; 0 for a blob that is in use. */
  async #remove({ name, path, size }: Entry): Promise<number> {
    if (this.#inUse.has(name)) return 0;
    await rm(path, { force: true });
    return size;
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

/** Whether the machine was started since this was last asked here. */
async function isNewBoot(path: string): Promise<boolean> {
  const now = await readFile('/proc/sys/kernel/random/boot_id', 'utf8').catch(() => '');
  const before = await readFile(path, 'utf8').catch(() => undefined);
  if (before === now) return false;
  await writeFile(path, now, { mode: 0o600 });
  return true;
}

async function* readChunks(path: string, range: { start?: number; end?: number } = {}): AsyncGenerator<Buffer> {
  for await (const chunk of createReadStream(path, { highWaterMark: 256 * 1024, ...range })) yield chunk as Buffer;
}
