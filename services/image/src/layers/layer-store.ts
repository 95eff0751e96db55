import { randomBytes } from 'node:crypto';
import { mkdir, readFile, readdir, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { cancelled, dataLoss, isEngineError, notFound } from '@flotilla/errors';
import { hasCode, pathExists } from '@flotilla/sys';
import { isDirectory, removeLargeTree } from './directories.js';
import { compressionOfFile } from './blob-compression.js';
import type { LayerCompression } from './codec-process.js';
import { BlobUnfinished } from './growing-blob.js';
import type { GrowingBlob } from './growing-blob.js';
import { ingestLayer } from './ingest-layer.js';
import type { CompressedLayer, IngestedLayer, PlainLayer } from './ingest-layer.js';
import { LayerPaths, chainIdOf } from './layer-paths.js';
import { readRecord } from './layer-record.js';
import type { LayerRecord } from './layer-record.js';
import { waitForApply } from './shared-apply.js';
import type { AppliedLayer, SharedApply } from './shared-apply.js';
import type { LayerTask, LayerTaskResult } from './layer-tasks.js';
import { LayerWorkers } from './layer-workers.js';
import type { LayerThread } from './layer-workers.js';
import { registerError } from './register-error.js';
import { stoppable } from './stoppable.js';
import { headBytes, unpackBlob, unpackGrowing } from './unpack-blob.js';
import { WritableLayers } from './writable-layers.js';

export interface LayerStoreOptions {
  /** Threads that unpack at once; default: see LayerWorkers. */
  parallelism?: number;
  /** Told about work in the background that failed. */
  onBackgroundError?: (error: unknown) => void;
}

/** A blob as it lies on the disk. */
export interface WholeBlob {
  blobPath: string;
  compression: LayerCompression;
}

/** What a layer is to be, and where. */
interface LayerPlace {
  /** The stack that this layer lies on; none for the lowest. */
  parentChainId?: string;
  /** What the uncompressed tar must hash to, `sha256:<hex>`. */
  diffId: string;
}

interface LayerRequest extends LayerPlace {
  signal?: AbortSignal;
  /** Bytes of the blob read so far, about ten times a second. */
  onProgress?: (readBytes: number) => void;
}

export interface PlainLayerSource {
  source: PlainLayer;
  /** Compressed file to make; must not exist, and is the caller's to remove. */
  targetPath: string;
  signal?: AbortSignal | undefined;
  /** Bytes of a file read so far, about ten times a second. */
  onProgress?: ((readBytes: number) => void) | undefined;
}

export interface StagedPlace {
  /** The stack that this layer lies on; none for the lowest. */
  parentChainId?: string | undefined;
  /** What the tar must hash to, if that is known. */
  diffId?: string | undefined;
  /** Told the chain id before the layer can be seen, to keep it from being removed. */
  claim: (chainId: string) => void;
}

export type PlainLayerInput = PlainLayerSource & StagedPlace;

/** A layer that has been unpacked and compressed before anybody knows where it belongs. Disposing removes it unless it has a place. */
export interface StagedLayer extends AsyncDisposable {
  readonly compressed: CompressedLayer;
  /** Set as soon as `place` has begun. */
  readonly isPlaced: boolean;
  /**
   * Gives it its place, once. A layer of this chain id that is there meanwhile stays.
   *
   * @throws EngineError `dataLoss` when it has another DiffID
   */
  place(place: StagedPlace): Promise<AppliedLayer>;
}

/** A layer to unpack, from a blob that is there or, `growing`, one that is being downloaded. */
export type LayerInput = LayerRequest & (WholeBlob | { growing: GrowingBlob });

/** What may be wrong with a layer on the disk. */
export type LayerFault = 'missing' | 'record';

const syncDelayMs = 1000;
const temporary = /^\.(tmp|trash)-/;
/** The signal of work that nobody can stop. */
const never = new AbortController().signal;

/**
 * Unpacked layers, one directory per chain id, and beside them the writable layers of containers.
 *
 *     layers/<chain id hex>/{diff/, layer.json, synced}
 *     containers/<container id>/{diff/, work/}   or, with vfs,   containers/<container id>/tree/
 *
 * A layer is filled in a temporary directory and renamed once its DiffID has been checked, so `has` means complete.
 * Layers are not written through to disk while somebody waits: that happens a second later, and layers that a power
 * failure caught in between are dropped by `open` (their blobs are kept, so they can be applied again). One process.
 */
export class LayerStore implements AsyncDisposable {
  readonly #paths: LayerPaths;
  readonly #bootId: string;
  readonly #workers: LayerWorkers;
  /** The writable layers of containers. */
  readonly writable: WritableLayers;
  /** Temporary directories that are in use. */
  readonly #ingesting = new Set<string>();
  readonly #options: LayerStoreOptions;
  readonly #sizes = new Map<string, bigint>();
  readonly #applying = new Map<string, SharedApply>();
  readonly #unsynced = new Set<string>();
  readonly #background = new Set<Promise<void>>();
  #syncTimer: NodeJS.Timeout | undefined;

  private constructor(root: string, bootId: string, options: LayerStoreOptions) {
    this.#paths = new LayerPaths(root);
    this.#bootId = bootId;
    this.#options = options;
    this.#workers = new LayerWorkers(options.parallelism);
    this.writable = new WritableLayers({
      paths: this.#paths,
      workers: this.#workers,
      inUse: this.#ingesting,
      lowerDirs: (chainIds) => this.lowerDirs(chainIds),
      discard: (directory, remove) => this.#discard(directory, remove),
    });
  }

  /** Opens the store below `root` (the image service's directory) and clears away what an earlier end left half-made. */
  static async open(root: string, options: LayerStoreOptions = {}): Promise<LayerStore> {
    const bootId = (await readFile('/proc/sys/kernel/random/boot_id', 'utf8')).trim();
    const store = new LayerStore(root, bootId, options);
    await store.#load();
    return store;
  }

  async #load(): Promise<void> {
    const paths = this.#paths;
    await mkdir(paths.layers, { recursive: true, mode: 0o700 });
    await mkdir(paths.containers, { recursive: true, mode: 0o700 });
    await mkdir(paths.empty, { recursive: true, mode: 0o755 });
    for (const name of await readdir(paths.layers)) {
      const directory = join(paths.layers, name);
      const record = temporary.test(name) ? undefined : await readRecord(directory);
      if (record === undefined) {
        await this.#discard(directory);
        continue;
      }
      const isSynced = await pathExists(join(directory, 'synced'));
      if (!isSynced && record.bootId !== this.#bootId) {
        await this.#discard(directory);
        continue;
      }
      const chainId = `sha256:${name}`;
      this.#sizes.set(chainId, BigInt(record.sizeBytes));
      if (!isSynced) this.#syncLater(chainId);
    }
    for (const name of await readdir(paths.containers)) {
      if (temporary.test(name)) await this.#discard(join(paths.containers, name));
    }
  }

  has(chainId: string): boolean {
    return this.#sizes.has(chainId);
  }

  /** Chain ids of all layers. */
  chainIds(): string[] {
    return [...this.#sizes.keys()];
  }

  /** @throws EngineError `notFound` */
  sizeOf(chainId: string): bigint {
    const size = this.#sizes.get(chainId);
    if (size === undefined) throw notFound(`layer does not exist: ${chainId}`);
    return size;
  }

  /**
   * Unpacks one layer; a layer that is there already costs nothing, one that is just being unpacked is waited for.
   * Layers do not need each other, so a whole image may be unpacked at once: parallelism is bounded here.
   *
   * A growing blob is unpacked while it comes, and its layer is there when the blob has been verified. If its download
   * fails, whoever shares the work goes on with a blob of his own.
   *
   * @throws EngineError `dataLoss` when blob, archive or DiffID are wrong, `cancelled` after `signal`; BlobUnfinished
   *   when a growing blob does not come to its end; nothing stays
   */
  async applyLayer(input: LayerInput): Promise<AppliedLayer> {
    for (;;) {
      const { apply, isShared } = await this.#join(input);
      if ('known' in apply) return apply.known;
      try {
        return await waitForApply(apply, input);
      } catch (error) {
        if (!(error instanceof BlobUnfinished && isShared)) throw error;
        await apply.done.catch(() => undefined);
      }
    }
  }

  /** The work on a layer: what is there already, what somebody else has begun, or what begins now. */
  async #join(input: LayerInput): Promise<{ apply: SharedApply | { known: AppliedLayer }; isShared: boolean }> {
    const chainId = chainIdOf(input.parentChainId, input.diffId);
    let apply = this.#applying.get(chainId);
    while (apply?.stop.signal.aborted === true) {
      await apply.done.catch(() => undefined); // given up by everybody: let it clear away, then start again
      apply = this.#applying.get(chainId);
    }
    const known = this.#sizes.get(chainId);
    if (known !== undefined) return { apply: { known: { chainId, sizeBytes: known } }, isShared: false };
    if (input.signal?.aborted === true) throw cancelled('cancelled');
    const isShared = apply !== undefined;
    if (apply === undefined) {
      const stop = new AbortController();
      const listeners = new Set<(readBytes: number) => void>();
      const tell = (readBytes: number) => {
        for (const listener of listeners) listener(readBytes);
      };
      const done = this.#apply(input, chainId, stop.signal, tell).finally(() => this.#applying.delete(chainId));
      done.catch(() => undefined); // everybody who waits hears it; nobody may be waiting any more
      apply = { done, stop, waiters: 0, listeners };
      this.#applying.set(chainId, apply);
    }
    apply.waiters++;
    return { apply, isShared };
  }

  #apply(
    input: LayerInput,
    chainId: string,
    signal: AbortSignal,
    onProgress: (readBytes: number) => void,
  ): Promise<AppliedLayer> {
    return 'growing' in input
      ? this.#applyGrowing(input.growing, input, chainId, signal, onProgress)
      : this.#applyWhole(input, input, chainId, signal, onProgress);
  }

  #applyWhole(
    blob: WholeBlob,
    layer: LayerPlace,
    chainId: string,
    signal: AbortSignal,
    onProgress: (readBytes: number) => void,
  ): Promise<AppliedLayer> {
    return this.#workers.withWorker(signal, (thread) =>
      this.#fill(layer, chainId, (diff) => unpackBlob(thread, blob, diff, signal, onProgress)),
    );
  }

  async #applyGrowing(
    growing: GrowingBlob,
    layer: LayerPlace,
    chainId: string,
    signal: AbortSignal,
    onProgress: (readBytes: number) => void,
  ): Promise<AppliedLayer> {
    // Whoever waits for a thread that follows has no need of one any more when the blob is whole.
    const isFinished = new AbortController();
    growing.finished.then(
      () => isFinished.abort(),
      () => isFinished.abort(),
    );
    for (;;) {
      await growing.hasBytes(headBytes, signal);
      const { generation } = growing;
      const isSameDownload = () => growing.generation === generation;
      const attempt = { hasBegun: false };
      try {
        return await this.#workers.withFollower(AbortSignal.any([signal, isFinished.signal]), (thread) => {
          attempt.hasBegun = true;
          return this.#fill(layer, chainId, async (diff) => {
            const unpacked = await unpackGrowing(thread, growing, diff, signal, onProgress);
            // Only now it is known whether these were the right bytes, and all of them from one download.
            await growing.finished;
            if (!isSameDownload()) throw new BlobUnfinished('the download began anew');
            return unpacked;
          });
        });
      } catch (error) {
        if (signal.aborted) throw error;
        if (attempt.hasBegun && isSameDownload()) {
          // What is wrong with the data may be the download's fault, what is wrong with the disk is not.
          if (!isEngineError(error, 'internal')) await growing.finished;
          if (isSameDownload()) throw error;
        }
        if (!isFinished.signal.aborted) continue;
      }
      const blobPath = await growing.finished;
      const blob = { blobPath, compression: await compressionOfFile(blobPath) };
      return this.#applyWhole(blob, layer, chainId, signal, onProgress);
    }
  }

  /** Makes the layer of what `unpack` puts into a directory, if that is what it should be. */
  async #fill(
    layer: LayerPlace,
    chainId: string,
    unpack: (diff: string) => Promise<LayerTaskResult>,
  ): Promise<AppliedLayer> {
    const temporaryDirectory = join(this.#paths.layers, `.tmp-${randomBytes(8).toString('hex')}`);
    const diff = join(temporaryDirectory, 'diff');
    let sizeBytes: bigint;
    try {
      await mkdir(temporaryDirectory, { mode: 0o700 });
      await mkdir(diff, { mode: 0o755 });
      const unpacked = await unpack(diff);
      if (unpacked.digest !== layer.diffId) {
        throw dataLoss(
          `filesystem layer verification failed for digest ${layer.diffId}: the layer's content has ${unpacked.digest}`,
        );
      }
      sizeBytes = BigInt(unpacked.fileBytes);
      const record: LayerRecord = {
        diffId: layer.diffId,
        parentChainId: layer.parentChainId ?? null,
        sizeBytes: String(sizeBytes),
        bootId: this.#bootId,
      };
      await writeFile(join(temporaryDirectory, 'layer.json'), JSON.stringify(record));
      await rename(temporaryDirectory, this.#paths.layer(chainId));
    } catch (error) {
      await rm(temporaryDirectory, { recursive: true, force: true });
      throw registerError(error);
    }
    this.#sizes.set(chainId, sizeBytes);
    this.#syncLater(chainId);
    return { chainId, sizeBytes };
  }

  /**
   * Unpacks an uncompressed layer (load, import, commit), compresses it into a blob, and digests both, reading it once.
   * A layer of this chain id that is there meanwhile stays.
   *
   * @throws EngineError `dataLoss` when archive or DiffID are wrong, `cancelled` after `signal`; nothing stays
   */
  async ingestLayer(input: PlainLayerInput): Promise<CompressedLayer & AppliedLayer> {
    const signal = input.signal ?? never;
    await using staged = await this.#workers.withWorker(signal, (thread) => this.#stage(thread, input, signal));
    return { ...staged.compressed, ...(await staged.place(input)) };
  }

  /**
   * As `ingestLayer`, for a layer that is still arriving and whose place is not known yet. Undefined, with the source
   * untouched, when as many arrive already as may at once.
   *
   * @throws EngineError `dataLoss` when it is no layer, `cancelled` after `signal`, or the source's own error; nothing stays
   */
  async stageLayer(input: PlainLayerSource): Promise<StagedLayer | undefined> {
    if (!this.#workers.hasFreeFollower) return undefined;
    const signal = input.signal ?? never;
    return this.#workers.withFollower(signal, (thread) => this.#stage(thread, input, signal));
  }

  async #stage(
    thread: LayerThread,
    { source, targetPath, onProgress }: PlainLayerSource,
    signal: AbortSignal,
  ): Promise<StagedLayer> {
    const temporaryDirectory = join(this.#paths.layers, `.tmp-${randomBytes(8).toString('hex')}`);
    const directory = join(temporaryDirectory, 'diff');
    const discard = async (): Promise<void> => {
      await rm(temporaryDirectory, { recursive: true, force: true });
      this.#ingesting.delete(temporaryDirectory);
    };
    this.#ingesting.add(temporaryDirectory);
    try {
      await mkdir(temporaryDirectory, { mode: 0o700 });
      await mkdir(directory, { mode: 0o755 });
      const ingested = await ingestLayer(thread, { source, directory, targetPath, signal, onProgress });
      const { diffId } = ingested;
      let isPlaced = false;
      return {
        compressed: ingested,
        get isPlaced() {
          return isPlaced;
        },
        place: async ({ parentChainId, diffId: expected, claim }) => {
          if (expected !== undefined && expected !== diffId) {
            throw registerError(
              dataLoss(
                `filesystem layer verification failed for digest ${expected}: the layer's content has ${diffId}`,
              ),
            );
          }
          isPlaced = true;
          const chainId = chainIdOf(parentChainId, diffId);
          claim(chainId);
          const sizeBytes = await this.#publish(temporaryDirectory, chainId, parentChainId, ingested);
          return { chainId, sizeBytes };
        },
        [Symbol.asyncDispose]: discard,
      };
    } catch (error) {
      await discard();
      throw error;
    }
  }

  /** Gives an unpacked layer its place, unless another has it by then. */
  async #publish(
    temporaryDirectory: string,
    chainId: string,
    parentChainId: string | undefined,
    { diffId, fileBytes }: IngestedLayer,
  ): Promise<bigint> {
    await writeFile(
      join(temporaryDirectory, 'layer.json'),
      JSON.stringify({
        diffId,
        parentChainId: parentChainId ?? null,
        sizeBytes: String(fileBytes),
        bootId: this.#bootId,
      } satisfies LayerRecord),
    );
    for (;;) {
      const known = this.#sizes.get(chainId);
      if (known !== undefined) return known;
      const other = this.#applying.get(chainId);
      if (other === undefined) break;
      await other.done.catch(() => undefined);
    }
    const sizeBytes = BigInt(fileBytes);
    // From here on nobody begins to unpack it, so nobody comes in between.
    const done = rename(temporaryDirectory, this.#paths.layer(chainId)).then(() => {
      this.#sizes.set(chainId, sizeBytes);
      this.#syncLater(chainId);
      return { chainId, sizeBytes };
    });
    const apply = { done, stop: new AbortController(), waiters: 1, listeners: new Set<(readBytes: number) => void>() };
    this.#applying.set(chainId, apply);
    try {
      await done;
    } finally {
      this.#applying.delete(chainId);
    }
    return sizeBytes;
  }

  /** The directories of a stack given lowest first, as an overlay wants them: topmost first. */
  lowerDirs(chainIds: readonly string[]): string[] {
    for (const chainId of chainIds) this.sizeOf(chainId);
    return chainIds.map((chainId) => this.#paths.diff(chainId)).reverse();
  }

  /** What an overlay without a writable layer shows a stack (lowest first) with: topmost first, an empty directory below it, for the kernel wants two. */
  mountDirs(chainIds: readonly string[]): string[] {
    return [...this.lowerDirs(chainIds), this.#paths.empty];
  }

  /** Removes a layer that no image and no container uses (the caller knows). Removing what is not there is fine. */
  async remove(chainId: string): Promise<void> {
    if (!this.#sizes.delete(chainId)) return;
    this.#unsynced.delete(chainId);
    await this.#discard(this.#paths.layer(chainId));
  }

  /** Removes every layer and every container's layer that is not listed. Layers that are being applied stay. */
  async sweep(keepChainIds: ReadonlySet<string>, keepContainers: ReadonlySet<string>): Promise<void> {
    for (const chainId of this.chainIds()) if (!keepChainIds.has(chainId)) await this.remove(chainId);
    for (const name of await readdir(this.#paths.containers)) {
      if (!keepContainers.has(name) && !temporary.test(name)) await this.writable.remove(name);
    }
  }

  /**
   * Looks at what the disk holds of a layer that `has` gives: its directory and its record.
   *
   * `diffId` may be unknown. @returns what is wrong: `missing` files, or a `record` that does not say what it must
   */
  async examine(
    chainId: string,
    diffId: string | undefined,
    parentChainId: string | undefined,
  ): Promise<LayerFault | undefined> {
    const directory = this.#paths.layer(chainId);
    if (!(await isDirectory(this.#paths.diff(chainId)))) return 'missing';
    const record = await readRecord(directory);
    const isRight =
      record !== undefined &&
      (diffId === undefined || record.diffId === diffId) &&
      record.parentChainId === (parentChainId ?? null) &&
      record.sizeBytes === String(this.#sizes.get(chainId));
    return isRight ? undefined : 'record';
  }

  /** Writes the record of a complete layer anew. */
  async restoreRecord(chainId: string, diffId: string, parentChainId: string | undefined): Promise<void> {
    const record: LayerRecord = {
      diffId,
      parentChainId: parentChainId ?? null,
      sizeBytes: String(this.sizeOf(chainId)),
      bootId: this.#bootId,
    };
    const path = join(this.#paths.layer(chainId), 'layer.json');
    const fresh = join(this.#paths.layer(chainId), `.layer.json-${randomBytes(8).toString('hex')}`);
    await writeFile(fresh, JSON.stringify(record));
    await rename(fresh, path);
  }

  /** Names below `layers/` that are no layer, and everything below `containers/`. */
  async entries(): Promise<{ strays: string[]; temporary: string[]; containers: string[] }> {
    const layers = await readdir(this.#paths.layers);
    const containers = await readdir(this.#paths.containers);
    const isTemporary = (name: string): boolean => temporary.test(name);
    for (const name of layers) await this.#applying.get(`sha256:${name}`)?.done.catch(() => undefined);
    return {
      strays: layers
        .filter((name) => !isTemporary(name) && !this.#sizes.has(`sha256:${name}`))
        .map((name) => join(this.#paths.layers, name)),
      temporary: [
        ...layers
          .filter(isTemporary)
          .map((name) => join(this.#paths.layers, name))
          .filter((path) => !this.#ingesting.has(path)),
        ...containers
          .filter(isTemporary)
          .map((name) => join(this.#paths.containers, name))
          .filter((path) => !this.#ingesting.has(path)),
      ],
      containers: containers.filter((name) => !isTemporary(name)),
    };
  }

  /** Takes away a directory that `entries` gave. */
  async discard(directory: string): Promise<void> {
    await this.#discard(directory);
  }

  /** Digest of a file, read by a worker. */
  async digestFile(path: string, algorithm: string, signal: AbortSignal): Promise<string> {
    return stoppable(signal, async (stop) => {
      const task: LayerTask = { kind: 'digest', path, algorithm, stop };
      return (await this.#workers.withWorker(signal, (thread) => thread.run(task))).digest;
    });
  }

  /** Waits for what was begun in the background (removals) so far. */
  async settled(): Promise<void> {
    await Promise.all(this.#background);
  }

  /** Waits until everything applied so far is safely on disk. */
  async sync(): Promise<void> {
    clearTimeout(this.#syncTimer);
    this.#syncTimer = undefined;
    const chainIds = [...this.#unsynced];
    if (chainIds.length === 0) return;
    await this.#workers.withWorker(never, (thread) => thread.run({ kind: 'sync', path: this.#paths.layers }));
    for (const chainId of chainIds) {
      if (!this.#unsynced.delete(chainId)) continue;
      try {
        await writeFile(join(this.#paths.layer(chainId), 'synced'), '');
      } catch (error) {
        if (!hasCode(error, 'ENOENT')) throw error; // removed meanwhile
      }
    }
  }

  #syncLater(chainId: string): void {
    this.#unsynced.add(chainId);
    this.#syncTimer ??= setTimeout(() => {
      this.#syncTimer = undefined;
      this.#inBackground(this.sync());
    }, syncDelayMs).unref();
  }

  /** Takes a directory away at once, and its content in the background. */
  async #discard(directory: string, remove = removeLargeTree): Promise<void> {
    const trash = join(directory, '..', `.trash-${randomBytes(8).toString('hex')}`);
    try {
      await rename(directory, trash);
    } catch (error) {
      if (hasCode(error, 'ENOENT')) return;
      throw error;
    }
    this.#inBackground(remove(trash));
  }

  #inBackground(work: Promise<void>): void {
    const quiet = work.catch((error: unknown) => this.#options.onBackgroundError?.(error));
    this.#background.add(quiet);
    void quiet.finally(() => this.#background.delete(quiet));
  }

  /** Stops what is being unpacked, finishes what runs in the background. */
  async [Symbol.asyncDispose](): Promise<void> {
    for (const { stop } of this.#applying.values()) stop.abort();
    await Promise.allSettled([...this.#applying.values()].map(({ done }) => done));
    if (this.#unsynced.size > 0) this.#inBackground(this.sync());
    await Promise.all(this.#background);
    await this.#workers[Symbol.asyncDispose]();
    await this.writable[Symbol.asyncDispose]();
  }
}
