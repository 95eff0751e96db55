import type { Worker } from 'node:worker_threads';
import { EngineError, type ErrorKind, errorKinds, internal } from '@flotilla/errors';
import { type IdPair, startThreadPool, startWorker } from '@flotilla/sys';
import type { IdMap } from './id-map.js';
import { pinDirectory, type PinOwners } from './pins.js';
import type { ResolvedUser } from './user-spec.js';
import type { CopyUp, JobReply, OpenedRootfs, OpenRootfs, RootfsJob, RootfsJobs } from './rootfs-jobs.js';

// Not while the service itself starts.
const warmUpAfterMs = 300;

interface Waiting {
  resolve: (result: unknown) => void;
  reject: (error: Error) => void;
}

/** Mounts, prepares and unmounts root file systems off the main thread: these calls can take as long as the disk pleases. */
export interface Rootfs {
  /** @throws EngineError `invalidArgument` for an unknown user or an impossible working directory; nothing is mounted then. */
  open(job: Omit<OpenRootfs, 'op'>): Promise<OpenedRootfs>;
  /** Copy image content into a volume that is empty, or in which a copy was cut; another stays as it is. */
  copyUp(job: Omit<CopyUp, 'op'>): Promise<void>;
  /**
   * Show `path`, which stays below `base`, beside the root file system `rootfs`, under a name of its own, until `close`.
   *
   * @returns where it is
   * @throws EngineError `invalidArgument` when it does not exist or leads out of `base`
   */
  pin(rootfs: string, base: string, path: string, name: string, owners?: PinOwners): Promise<string>;
  /**
   * Show what the layers `lower` (topmost first) hold, or only `path` of it when that is not empty, as `pin` does, read-only.
   *
   * @throws EngineError as `pin`; `internal` when the kernel refuses the overlay
   */
  pinImage(rootfs: string, lower: readonly string[], path: string, name: string, idMap?: IdMap): Promise<string>;
  /** Mount memory for /dev/shm, `owner`'s, beside the root file system `rootfs`, under a name of its own, until `close`. @returns where it is */
  sharedMemory(rootfs: string, sizeBytes: bigint, name: string, owner?: IdPair): Promise<string>;
  /** Keep a namespace beside the root file system until `close`. @returns where it is. */
  pinNamespace(rootfs: string, source: string): Promise<string>;
  /** Name the NIS domain of a container that is created and not started, `pid` being its first process. */
  nameDomain(pid: number, domainname: string): Promise<void>;
  /** @throws EngineError when no root file system with mapped ids can be mounted from `directory`, which is made and removed. */
  tryIdMap(directory: string, idMap: IdMap, needsOverlay: boolean): Promise<void>;
  /** Unmount a root file system and its pins. Idempotent. */
  close(target: string): Promise<void>;
  /** `user[:group]` by the files of a root file system that is mounted. @throws EngineError `invalidArgument`. */
  resolveUser(rootfs: string, user: string, groups: readonly string[]): Promise<ResolvedUser>;
}

/**
 * The `Rootfs` of the service: one thread for what a start waits for, started soon after the service, another, started on first use, for
 * copies and unmounts, which may be long. A thread that dies fails its jobs and is replaced.
 */
export class RootfsWorkers implements Rootfs, AsyncDisposable {
  readonly #quick: JobThread;
  readonly #slow: JobThread;
  readonly #warmUp: NodeJS.Timeout;

  private constructor() {
    this.#quick = new JobThread();
    this.#slow = new JobThread();
    this.#warmUp = setTimeout(() => this.#quick.warmUp(), warmUpAfterMs);
    this.#warmUp.unref();
  }

  static async start(): Promise<RootfsWorkers> {
    await startThreadPool();
    return new RootfsWorkers();
  }

  open(job: Omit<OpenRootfs, 'op'>): Promise<OpenedRootfs> {
    return this.#quick.run<'open'>({ op: 'open', ...job });
  }

  async copyUp(job: Omit<CopyUp, 'op'>): Promise<void> {
    await this.#slow.run<'copyUp'>({ op: 'copyUp', ...job });
  }

  async pin(rootfs: string, base: string, path: string, name: string, owners: PinOwners = {}): Promise<string> {
    const directory = pinDirectory(rootfs);
    return (await this.#quick.run<'pin'>({ op: 'pin', base, path, directory, name, owners })).path;
  }

  async pinNamespace(rootfs: string, source: string): Promise<string> {
    const directory = pinDirectory(rootfs);
    return (await this.#quick.run<'pinNamespace'>({ op: 'pinNamespace', source, directory })).path;
  }

  async nameDomain(pid: number, domainname: string): Promise<void> {
    await this.#quick.run<'nameDomain'>({ op: 'nameDomain', pid, domainname });
  }

  async tryIdMap(directory: string, idMap: IdMap, needsOverlay: boolean): Promise<void> {
    await this.#quick.run<'tryIdMap'>({ op: 'tryIdMap', directory, idMap, needsOverlay });
  }

  async pinImage(rootfs: string, lower: readonly string[], path: string, name: string, idMap?: IdMap): Promise<string> {
    const job = { lower: [...lower], path, directory: pinDirectory(rootfs), name, ...given(idMap) };
    return (await this.#quick.run<'pinImage'>({ op: 'pinImage', ...job })).path;
  }

  async sharedMemory(rootfs: string, sizeBytes: bigint, name: string, owner?: IdPair): Promise<string> {
    const job = { sizeBytes, directory: pinDirectory(rootfs), name, ...(owner === undefined ? {} : { owner }) };
    return (await this.#quick.run<'sharedMemory'>({ op: 'sharedMemory', ...job })).path;
  }

  async close(target: string): Promise<void> {
    await this.#slow.run<'close'>({ op: 'close', target });
  }

  resolveUser(rootfs: string, user: string, groups: readonly string[]): Promise<ResolvedUser> {
    return this.#quick.run<'resolveUser'>({ op: 'resolveUser', rootfs, user, groups: [...groups] });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearTimeout(this.#warmUp);
    await Promise.all([this.#quick.stop(), this.#slow.stop()]);
  }
}

const given = (idMap: IdMap | undefined): { idMap?: IdMap } => (idMap === undefined ? {} : { idMap });

class JobThread {
  #worker: Worker | undefined;
  #nextId = 1;
  readonly #waiting = new Map<number, Waiting>();

  warmUp(): void {
    if (this.#worker === undefined) this.#start();
  }

  run<K extends keyof RootfsJobs>(job: RootfsJobs[K]['job']): Promise<RootfsJobs[K]['result']> {
    const worker = this.#worker ?? this.#start();
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve: (result) => resolve(result as RootfsJobs[K]['result']), reject });
      worker.ref();
      worker.postMessage({ id, job: job satisfies RootfsJob });
    });
  }

  async stop(): Promise<void> {
    const worker = this.#worker;
    this.#worker = undefined;
    await worker?.terminate();
  }

  #start(): Worker {
    const worker = startWorker('rootfs-prepare-worker', import.meta.url);
    this.#worker = worker;
    worker.on('message', (reply: JobReply) => {
      const waiting = this.#waiting.get(reply.id);
      this.#waiting.delete(reply.id);
      if (this.#waiting.size === 0) worker.unref();
      if (reply.error === undefined) waiting?.resolve(reply.result);
      else waiting?.reject(restoreError(reply.error));
    });
    let failure: Error | undefined;
    worker.on('error', (error: Error) => {
      failure = error;
    });
    worker.on('exit', () => {
      if (this.#worker === worker) this.#worker = undefined;
      const cause = failure === undefined ? {} : { cause: failure };
      for (const waiting of this.#waiting.values())
        waiting.reject(internal('the root file system worker ended', cause));
      this.#waiting.clear();
    });
    worker.unref();
    return worker;
  }
}

function restoreError({ kind, message }: { kind: string | undefined; message: string }): Error {
  const known: ErrorKind | undefined = errorKinds.find((candidate) => candidate === kind);
  return known === undefined ? internal(message) : new EngineError(known, message);
}
