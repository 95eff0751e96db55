import { randomUUID } from 'node:crypto';
import { constants } from 'node:fs';
import { copyFile, mkdir, open, readFile, readdir, rename, rm, stat, writeFile } from 'node:fs/promises';
import { dirname, join, relative } from 'node:path';
import { notFound } from '@flotilla/errors';
import { digestAlgorithm, digestHex, isDigest, sha256Of } from '@flotilla/oci';
import type { Digest } from '@flotilla/oci';
import { KeyedLocks } from '@flotilla/store';
import { hasCode } from '@flotilla/sys';

/**
 * Blobs by digest: `content/<algorithm>/<first two digits>/<hex>`; manifests, configurations and compressed layers.
 *
 * What is given to it has been verified. It is written through to the disk while the caller goes on; `settled` waits
 * for that, and must be awaited before a record names the blob.
 */
export class ContentStore {
  readonly #root: string;
  readonly #incoming: string;
  readonly #quarantine: string;
  readonly #sizes = new Map<Digest, number>();
  readonly #syncing = new Map<Digest, Promise<void>>();
  readonly #locks = new KeyedLocks();

  private constructor(root: string) {
    this.#root = join(root, 'content');
    this.#incoming = join(root, 'incoming');
    this.#quarantine = join(root, 'quarantine');
  }

  /** Opens the store below the image service's directory; what was being received before a crash goes. */
  static async open(root: string): Promise<ContentStore> {
    const store = new ContentStore(root);
    await rm(store.#incoming, { recursive: true, force: true });
    await mkdir(store.#incoming, { recursive: true, mode: 0o700 });
    await mkdir(store.#root, { recursive: true, mode: 0o700 });
    for (const algorithm of await readdir(store.#root)) {
      for (const prefix of await readdir(join(store.#root, algorithm))) {
        for (const hex of await readdir(join(store.#root, algorithm, prefix))) {
          const digest = `${algorithm}:${hex}`;
          const path = join(store.#root, algorithm, prefix, hex);
          if (isDigest(digest)) store.#sizes.set(digest, (await stat(path)).size);
          else await rm(path, { force: true });
        }
      }
    }
    return store;
  }

  has(digest: Digest): boolean {
    return this.#sizes.has(digest);
  }

  sizeOf(digest: Digest): number | undefined {
    return this.#sizes.get(digest);
  }

  path(digest: Digest): string {
    const hex = digestHex(digest);
    return join(this.#root, digestAlgorithm(digest), hex.slice(0, 2), hex);
  }

  /** @throws EngineError `notFound`. */
  existingPath(digest: Digest): string {
    if (!this.#sizes.has(digest)) throw notFound(`content ${digest} not found`);
    return this.path(digest);
  }

  /** Takes over a verified file; it is renamed, or copied from another file system. A blob that is there already wins. */
  async adopt(digest: Digest, file: string): Promise<void> {
    await this.#locks.run(digest, async () => {
      if (this.#sizes.has(digest)) {
        await rm(file, { force: true });
        return;
      }
      const target = this.path(digest);
      await mkdir(dirname(target), { recursive: true, mode: 0o700 });
      try {
        await rename(file, target);
      } catch (error) {
        if (!hasCode(error, 'EXDEV')) throw error;
        const copy = this.scratchPath();
        try {
          await copyFile(file, copy, constants.COPYFILE_EXCL);
          await rename(copy, target);
        } catch (failure) {
          await rm(copy, { force: true });
          throw failure;
        }
        await rm(file, { force: true });
      }
      this.#sizes.set(digest, (await stat(target)).size);
      const synced = syncFile(target);
      this.#syncing.set(digest, synced);
      // The failure is told to whoever settles.
      synced.then(
        () => this.#syncing.delete(digest),
        () => undefined,
      );
    });
  }

  /** Stores bytes; gives their digest. */
  async put(bytes: Uint8Array): Promise<Digest> {
    const digest = sha256Of(bytes);
    if (this.#sizes.has(digest)) return digest;
    const scratch = this.scratchPath();
    try {
      await writeFile(scratch, bytes, { flag: 'wx', mode: 0o600 });
      await this.adopt(digest, scratch);
    } catch (error) {
      await rm(scratch, { force: true });
      throw error;
    }
    return digest;
  }

  /** Waits until the blobs are on the disk. */
  async settled(digests: Iterable<Digest>): Promise<void> {
    for (const digest of digests) await this.#syncing.get(digest);
  }

  /** @throws EngineError `notFound`. For small blobs only. */
  async read(digest: Digest): Promise<Buffer> {
    if (!this.#sizes.has(digest)) throw notFound(`content ${digest} not found`);
    return readFile(this.path(digest));
  }

  /** Removing what is not there is fine; `isWanted` is asked when nobody else can change the blob. */
  async remove(digest: Digest, isWanted: () => boolean = () => false): Promise<void> {
    await this.#locks.run(digest, async () => {
      if (isWanted() || !this.#sizes.delete(digest)) return;
      this.#syncing.delete(digest);
      await rm(this.path(digest), { force: true });
    });
  }

  /** Removes every blob that is not listed. */
  async sweep(keep: ReadonlySet<string>): Promise<void> {
    for (const digest of [...this.#sizes.keys()]) if (!keep.has(digest)) await this.remove(digest);
  }

  digests(): Digest[] {
    return [...this.#sizes.keys()];
  }

  /** Looks at the file itself; its content is not read. */
  async fileState(digest: Digest): Promise<'whole' | 'missing' | 'wrong size'> {
    const size = this.#sizes.get(digest);
    const found = size === undefined ? undefined : await sizeOfFile(this.path(digest));
    return found === undefined ? 'missing' : found === size ? 'whole' : 'wrong size';
  }

  /** Files below `content/` that are no blob of this store, by their paths. */
  async strays(): Promise<string[]> {
    const found: string[] = [];
    for (const entry of await readdir(this.#root, { recursive: true, withFileTypes: true })) {
      if (entry.isDirectory()) continue;
      const path = join(entry.parentPath, entry.name);
      const digest = `${relative(this.#root, entry.parentPath).split('/')[0] ?? ''}:${entry.name}`;
      const isPlace = isDigest(digest) && this.path(digest) === path;
      // Whoever is just bringing or removing it has the lock.
      if (isPlace && (await this.#locks.run(digest, () => Promise.resolve(this.#sizes.has(digest))))) continue;
      found.push(path);
    }
    return found;
  }

  /** Files that are being written, or were left when writing ended badly. */
  async incoming(): Promise<string[]> {
    return (await readdir(this.#incoming)).map((name) => join(this.#incoming, name));
  }

  /**
   * Takes a blob out of the store whose content is not what its digest says; the next one who brings it is welcome.
   * The file is kept aside for whoever wants to know what happened to it.
   */
  async quarantine(digest: Digest): Promise<void> {
    await this.#locks.run(digest, async () => {
      if (!this.#sizes.delete(digest)) return;
      this.#syncing.delete(digest);
      await mkdir(this.#quarantine, { recursive: true, mode: 0o700 });
      try {
        await rename(this.path(digest), join(this.#quarantine, digest.replace(':', '-')));
      } catch (error) {
        if (!hasCode(error, 'ENOENT')) throw error;
      }
    });
  }

  /** How many corrupt blobs lie aside; those that have been brought again since are removed first. */
  async quarantined(): Promise<number> {
    let count = 0;
    for (const name of await readdir(this.#quarantine).catch(() => [])) {
      const digest = name.replace('-', ':');
      if (isDigest(digest) && this.#sizes.has(digest)) await rm(join(this.#quarantine, name), { force: true });
      else count += 1;
    }
    return count;
  }

  /** Name for a new file on the store's file system; whoever makes it renames or removes it. */
  scratchPath(): string {
    return join(this.#incoming, randomUUID());
  }
}

async function syncFile(path: string): Promise<void> {
  const file = await open(path, 'r');
  try {
    await file.datasync();
  } finally {
    await file.close();
  }
}

async function sizeOfFile(path: string): Promise<number | undefined> {
  try {
    const stats = await stat(path);
    return stats.isFile() ? stats.size : undefined;
  } catch (error) {
    if (hasCode(error, 'ENOENT', 'ENOTDIR')) return undefined;
    throw error;
  }
}
