import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { chmod, mkdir, readdir, rename, rm, rmdir } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { EngineError, conflict, internal, messageOf } from '@flotilla/errors';
import type { Logger } from '@flotilla/log';
import { hasCode, isMountPoint, makeShared, MS_BIND, readMounts, SysError } from '@flotilla/sys';
import type { VolumeRecord } from '../volumes/volume-record.js';
import { isFresh } from './is-fresh.js';
import { KernelThreads } from './kernel-threads.js';
import type { KernelLimits } from './kernel-threads.js';
import { checkLocalName } from './local-name.js';
import { checkLocalOptions, localMount, sizeLimit } from './local-options.js';
import { mountError, reasonOf } from './mount-error.js';
import { resolveServer } from './network-address.js';
import { copyStaging } from './volume-driver.js';
import type { DetachedVolume, VolumeContent, VolumeDriver } from './volume-driver.js';
import { VolumeQuotas } from './volume-quotas.js';

/** Volumes on their way out, `<random>/<name>`. No volume name begins with a dot. */
const removedDir = '.removed';

/**
 * Volumes as directories `<root>/<name>/_data` of this machine. With options `type`, `device` and `o` something is mounted on that directory
 * from the first container that starts to the last that ends.
 */
export class LocalDriver implements VolumeDriver {
  readonly name = 'local';
  readonly scope = 'local';
  readonly #root: string;
  readonly #log: Logger;
  readonly #kernel: KernelThreads;
  readonly #quotas: VolumeQuotas | undefined;

  private constructor(root: string, log: Logger, kernel: KernelThreads) {
    this.#root = root;
    this.#log = log;
    this.#kernel = kernel;
    this.#quotas = VolumeQuotas.open(root, async (target, project) => {
      await kernel.run(basename(target), { kind: 'adopt', target, project });
    });
  }

  /** @param root `<data-root>/volumes`. It is made a shared mount, so that volumes mounted here are seen in the container service's mount namespace. */
  static async open(root: string, log: Logger, limits?: KernelLimits): Promise<LocalDriver> {
    await makeDirectory(root, 0o700);
    // Files of root's in a volume may be programs that run as root whoever starts them. One of an engine before is open to all.
    await chmod(root, 0o700);
    await makeDirectory(join(root, removedDir), 0o700);
    try {
      makeShared(root);
    } catch (error) {
      if (!hasCode(error, 'EPERM')) throw error;
      log.warn('not root: volumes with mount options will not work');
    }
    return new LocalDriver(root, log, new KernelThreads(limits));
  }

  check(name: string, options: Readonly<Record<string, string>>): void {
    checkLocalName(name);
    checkLocalOptions(options, this.#quotas !== undefined);
  }

  async create(name: string, options: Readonly<Record<string, string>>): Promise<void> {
    await makeDirectory(join(this.#root, name), 0o701);
    // A directory that exists already is taken over with what is in it: the record was lost, the data must not be.
    await makeDirectory(this.pathOf(name), 0o755);
    await this.#limit(name, options);
  }

  async discard(name: string): Promise<void> {
    this.#quotas?.release(join(this.#root, name));
    await removeEmpty(this.pathOf(name));
    await removeEmpty(join(this.#root, name));
  }

  pathOf(name: string): string {
    return join(this.#root, name, '_data');
  }

  contentOf({ options }: VolumeRecord): VolumeContent {
    const mount = localMount(options);
    if (mount === undefined) return 'own';
    return (mount.flags & MS_BIND) === 0 ? 'fileSystem' : 'bind';
  }

  async detach(record: VolumeRecord): Promise<DetachedVolume> {
    const { name } = record;
    const path = join(this.#root, name);
    // It may still come, and then into the directory where the files are deleted.
    this.#kernel.checkAnswered(name, 'mount', 'unmount');
    await this.unmount(record);
    // Deleting must never reach into what somebody mounted there.
    if (readMounts().some(({ target }) => target.startsWith(`${path}/`))) {
      throw conflict(`unable to remove volume: ${path} has something mounted in it`);
    }
    const place = join(this.#root, removedDir, randomBytes(8).toString('hex'));
    const parked = join(place, name);
    try {
      await mkdir(place, { mode: 0o700 });
      await rename(path, parked);
    } catch (error) {
      await removeEmpty(place);
      if (!hasCode(error, 'ENOENT')) throw internal(`unable to remove volume: ${reasonOf(error)}`, { cause: error });
    }
    return {
      finish: () => this.#delete(place),
      undo: async () => {
        await rename(parked, path).catch((error: unknown) => {
          if (!hasCode(error, 'ENOENT')) throw error;
        });
        await removeEmpty(place);
      },
    };
  }

  async mount(record: VolumeRecord, signal?: AbortSignal): Promise<void> {
    const mount = localMount(record.options);
    const path = this.pathOf(record.name);
    if (mount === undefined) {
      // Somebody deleted the directory by hand: containers start with an empty one, as with dockerd.
      if (!existsSync(path)) await this.create(record.name, record.options);
      return;
    }
    try {
      // What is mounted there now is taken off as soon as such a call comes back.
      this.#kernel.checkAnswered(record.name, 'mount', 'unmount');
    } catch (error) {
      throw mountError(path, mount, error);
    }
    if (!isMountPoint(path)) {
      await this.create(record.name, record.options);
      try {
        const target = path;
        await this.#kernel.run(record.name, { kind: 'mount', target, mount: await resolveServer(mount) }, signal);
      } catch (error) {
        throw mountError(path, mount, error);
      }
    }
  }

  async unmount(record: VolumeRecord): Promise<void> {
    if (localMount(record.options) === undefined) return;
    const path = this.pathOf(record.name);
    if (!isMountPoint(path)) return;
    try {
      await this.#kernel.run(record.name, { kind: 'unmount', target: path });
    } catch (error) {
      throw error instanceof SysError ? internal(`unmount ${path}: ${reasonOf(error)}`, { cause: error }) : error;
    }
  }

  async isFresh(record: VolumeRecord, signal?: AbortSignal): Promise<boolean> {
    const { name, options } = record;
    const target = this.pathOf(name);
    const staging = copyStaging(record);
    try {
      if (localMount(options) === undefined) return isFresh(target, staging);
      return (await this.#kernel.run(name, { kind: 'isFresh', target, staging }, signal)) === true;
    } catch (error) {
      throw error instanceof EngineError ? error : internal(`read ${target}: ${reasonOf(error)}`, { cause: error });
    }
  }

  async measure({ name, options }: VolumeRecord, signal?: AbortSignal): Promise<bigint> {
    // What is mounted may be a whole file server.
    if (localMount(options) !== undefined) return -1n;
    const bytes = await this.#kernel.run(name, { kind: 'measure', target: this.pathOf(name) }, signal);
    return typeof bytes === 'bigint' ? bytes : -1n;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#kernel[Symbol.asyncDispose]();
  }

  /** Set the limit of a volume that has one, so that it counts for all that is in its directory. */
  async #limit(name: string, options: Readonly<Record<string, string>>): Promise<void> {
    const bytes = sizeLimit(options);
    if (bytes === 0) return;
    if (this.#quotas === undefined) throw internal('quota size requested but no quota support');
    try {
      await this.#quotas.limit(join(this.#root, name), BigInt(bytes));
    } catch (error) {
      throw internal(`failed to set the size of volume '${name}': ${reasonOf(error)}`, { cause: error });
    }
  }

  async recover(records: readonly VolumeRecord[]): Promise<void> {
    const recorded = new Map(records.map((record) => [record.name, record]));
    await this.#recoverRemoved(recorded);
    for (const name of await readdir(this.#root)) {
      if (name === removedDir || recorded.has(name)) continue;
      // Made for a create that did not get to its record. With files in it, it is somebody's data.
      await this.discard(name).catch((error: unknown) => {
        this.#log.warn({ volume: name, reason: messageOf(error) }, 'directory without a volume is kept');
      });
    }
    for (const record of records) {
      if (record.mounts.length === 0) await this.unmount(record);
      if (sizeLimit(record.options) > 0 && existsSync(this.pathOf(record.name))) await this.#limitAgain(record);
    }
  }

  /** As one that was cut, or after the data root was moved to where nothing is limited: the files are there in any case. */
  async #limitAgain({ name, options }: VolumeRecord): Promise<void> {
    try {
      await this.#limit(name, options);
    } catch (error) {
      this.#log.warn({ volume: name, reason: messageOf(error) }, 'size of a volume is not limited');
    }
  }

  async #recoverRemoved(recorded: ReadonlyMap<string, VolumeRecord>): Promise<void> {
    for (const entry of await readdir(join(this.#root, removedDir))) {
      const place = join(this.#root, removedDir, entry);
      for (const name of await readdir(place)) {
        // The removal was not recorded, so nobody was told of it: the volume lives on.
        if (recorded.has(name)) await this.#putBack(join(place, name), name);
      }
      const left = await readdir(place);
      if (!left.some((name) => recorded.has(name))) await this.#delete(place);
    }
  }

  async #putBack(parked: string, name: string): Promise<void> {
    try {
      await rename(parked, join(this.#root, name));
    } catch (error) {
      if (!hasCode(error, 'ENOTEMPTY', 'EEXIST')) throw error;
      this.#log.error({ volume: name, path: parked }, 'files of a volume could not be put back');
    }
  }

  async #delete(path: string): Promise<void> {
    try {
      if (this.#quotas !== undefined) {
        for (const name of await readdir(path)) this.#quotas.release(join(path, name));
      }
      await rm(path, { recursive: true, force: true, maxRetries: 2 });
    } catch (error) {
      // The volume is gone for its users; the rest is tried again at the next start.
      this.#log.error({ path, reason: messageOf(error) }, 'files of a removed volume could not be deleted');
    }
  }
}

async function makeDirectory(path: string, mode: number): Promise<void> {
  try {
    const made = await mkdir(path, { recursive: true, mode });
    // mkdir's mode is cut by the umask. A directory that exists keeps the mode that its user gave it.
    if (made !== undefined) await chmod(path, mode);
  } catch (error) {
    throw directoryError(path, error);
  }
}

async function removeEmpty(path: string): Promise<void> {
  try {
    await rmdir(path);
  } catch (error) {
    if (!hasCode(error, 'ENOENT')) throw error;
  }
}

function directoryError(path: string, error: unknown): EngineError {
  return internal(`error while creating volume path '${path}': mkdir ${path}: ${reasonOf(error)}`, { cause: error });
}
