import { randomBytes } from 'node:crypto';
import { mkdir, rename } from 'node:fs/promises';
import { join } from 'node:path';
import type { TreeChange } from '@flotilla/layer-tar';
import { isDirectory, removeLargeTree, removeSmallTree } from './directories.js';
import type { LayerPaths } from './layer-paths.js';
import type { LayerTree } from './layer-tasks.js';
import { LayerWorkers } from './layer-workers.js';
import { packToStream } from './pack-stream.js';
import { stoppable } from './stoppable.js';
import type { StorageDriver } from './storage-driver.js';

export interface ContainerLayer {
  driver: StorageDriver;
  /** Topmost first; empty with vfs, where `upper` is the whole root file system, and there only. */
  lower: string[];
  upper: string;
  /** Empty with vfs. */
  work: string;
}

/** What the writable layers need of the store of those below. */
export interface LayersBelow {
  readonly paths: LayerPaths;
  /** For work that nobody reads along with. */
  readonly workers: LayerWorkers;
  /** Temporary directories that are not leftovers. */
  readonly inUse: Set<string>;
  /** Of a stack given lowest first: topmost first. @throws EngineError `notFound` */
  readonly lowerDirs: (chainIds: readonly string[]) => string[];
  /** Takes a directory away at once, and its content in the background. */
  readonly discard: (directory: string, remove: (directory: string) => Promise<void>) => Promise<void>;
}

const maxReaders = 8;
/** The signal of work that nobody can stop. */
const never = new AbortController().signal;

/** The writable layers of containers: `containers/<container id>/{diff/, work/}` or, with vfs, `containers/<container id>/tree/`. */
export class WritableLayers implements AsyncDisposable {
  readonly #below: LayersBelow;
  readonly #paths: LayerPaths;
  /** Threads that read what containers have: they wait for clients, and unpacking must not wait for them. */
  readonly #readers = new LayerWorkers(maxReaders);

  constructor(below: LayersBelow) {
    this.#below = below;
    this.#paths = below.paths;
  }

  /** Makes the writable layer of a container on the stack `chainIds` (lowest first); a second call finds the first's. */
  async create(
    containerId: string,
    chainIds: readonly string[],
    driver: StorageDriver = 'overlay2',
  ): Promise<ContainerLayer> {
    if (driver === 'vfs') return this.#createCopy(containerId, chainIds);
    const lower = chainIds.length === 0 ? [this.#paths.empty] : this.#below.lowerDirs(chainIds);
    const directory = this.#paths.container(containerId);
    const layer = { driver, lower, upper: join(directory, 'diff'), work: join(directory, 'work') };
    await mkdir(directory, { recursive: true, mode: 0o700 });
    await mkdir(layer.upper, { recursive: true, mode: 0o755 });
    await mkdir(layer.work, { recursive: true, mode: 0o700 });
    return layer;
  }

  /** Removes what a container has written; it must be unmounted. Removing what is not there is fine. */
  async remove(containerId: string): Promise<void> {
    const directory = this.#paths.container(containerId);
    const isCopy = await isDirectory(join(directory, 'tree'));
    await this.#below.discard(directory, isCopy ? removeLargeTree : removeSmallTree);
  }

  /** Where a container's root file system lies, on the stack `chainIds` (lowest first). */
  tree(containerId: string, chainIds: readonly string[], driver: StorageDriver = 'overlay2'): LayerTree {
    const isCopy = driver === 'vfs';
    const upper = join(this.#paths.container(containerId), isCopy ? 'tree' : 'diff');
    return { upper, lower: this.#below.lowerDirs(chainIds), isCopy };
  }

  /** Sum of the sizes of the files that a container has written (SizeRw), files with several names counted once. */
  async size(containerId: string, signal: AbortSignal = never): Promise<bigint> {
    const path = join(this.#paths.container(containerId), 'diff');
    return stoppable(signal, async (stop) => {
      const measured = await this.#below.workers.withWorker(signal, (thread) =>
        thread.run({ kind: 'measure', path, stop }),
      );
      return BigInt(measured.fileBytes);
    });
  }

  /** As `size`, of a whole copy: the files that differ from the layers. */
  async changedSize(tree: LayerTree, signal: AbortSignal): Promise<bigint> {
    return stoppable(signal, async (stop) => {
      const measured = await this.#below.workers.withWorker(signal, (thread) =>
        thread.run({ kind: 'measureChanges', tree, stop }),
      );
      return BigInt(measured.fileBytes);
    });
  }

  /** What a container has changed, sorted by path. */
  async changes(tree: LayerTree, signal: AbortSignal): Promise<TreeChange[]> {
    return stoppable(signal, async (stop) => {
      const result = await this.#readers.withWorker(signal, (thread) => thread.run({ kind: 'changes', tree, stop }));
      return result.changes ?? [];
    });
  }

  /** The tar of everything that a container's root file system shows; cancelled when it is left early. */
  pack(tree: LayerTree, signal: AbortSignal): AsyncGenerator<Buffer> {
    return packToStream(this.#readers, { tree, as: 'root file system' }, signal);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#readers[Symbol.asyncDispose]();
  }

  /** The whole tree is copied in a temporary directory, so that one that has its name is complete. */
  async #createCopy(containerId: string, chainIds: readonly string[]): Promise<ContainerLayer> {
    const { workers, inUse, lowerDirs } = this.#below;
    const directory = this.#paths.container(containerId);
    const layer: ContainerLayer = { driver: 'vfs', lower: [], upper: join(directory, 'tree'), work: '' };
    if (await isDirectory(layer.upper)) return layer;
    const lower = lowerDirs(chainIds);
    const temporaryDirectory = join(this.#paths.containers, `.tmp-${randomBytes(8).toString('hex')}`);
    const tree = join(temporaryDirectory, 'tree');
    inUse.add(temporaryDirectory);
    try {
      await stoppable(never, (stop) =>
        workers.withWorker(never, async (thread) => {
          await mkdir(temporaryDirectory, { mode: 0o700 });
          await mkdir(tree, { mode: 0o755 });
          await thread.run({ kind: 'copy', lower, directory: tree, stop });
        }),
      );
      await rename(temporaryDirectory, directory);
      return layer;
    } catch (error) {
      await removeLargeTree(temporaryDirectory);
      throw error;
    } finally {
      inUse.delete(temporaryDirectory);
    }
  }
}
