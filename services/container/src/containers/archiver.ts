import { rmdir } from 'node:fs/promises';
import { cancelled, conflict, isEngineError, messageOf, notFound } from '@flotilla/errors';
import { pathExists } from '@flotilla/sys';
import type { EngineEvent } from '@flotilla/store';
import type { ContainerView, PathInfo, StoppedView, ViewMount, WriteRules } from '../archive/archive-jobs.js';
import type { ArchiveThreads } from '../archive/archive-threads.js';
import { etcFilesIn } from '../rootfs/etc-files.js';
import { type ContainerRecord, stateOf } from '../store/container-record.js';
import { makeBundle } from './bundle-directory.js';
import type { ContainerContext } from './context.js';
import { containerArchived, containerExtracted } from './events.js';
import { fillVolumes } from './fill-volumes.js';
import { resolveMounts } from './prepare-run.js';
import { hasSources, hasVolumes } from './release.js';
import type { RootfsUse } from './rootfs-uses.js';
import { archiveRoot, bundleDir, containerDir, rootfsDir } from './settings.js';
import { isLive } from './state.js';

/** How long the end of a task takes to be written down, and how often a copy meets one. */
const endOfTaskMs = 10_000;
const attempts = 3;

/** How `docker cp` into a container treats what it finds. */
export interface WriteOptions {
  name: string;
  path: string;
  noOverwriteDirNonDir: boolean;
  /** Give everything to the container's user. */
  copyUidGid: boolean;
}

/**
 * Copies in and out of containers, whether they run or not, through their volumes and bind mounts.
 *
 * The root file system of one that does not run is mounted for one copy at a time; a start waits for its end, a removal
 * ends it. One that runs may end meanwhile: its root file system stays until the copy has ended.
 */
export class Archiver {
  readonly #context: ContainerContext;
  readonly #threads: ArchiveThreads;

  constructor(context: ContainerContext, threads: ArchiveThreads) {
    this.#context = context;
    this.#threads = threads;
  }

  /** @throws EngineError `notFound` for container and path; `invalidArgument` for a file with a closing `/`; `conflict` while it is being removed. */
  stat(name: string, path: string, caller: AbortSignal): Promise<PathInfo> {
    return this.#within({ name, path, caller }, ({ view, signal }) => this.#threads.stat({ view, path }, signal));
  }

  /** What the path is, then its tar. @throws EngineError as `stat`. */
  async *read(name: string, path: string, caller: AbortSignal): AsyncGenerator<PathInfo | Buffer> {
    for (let attempt = 1; ; attempt++) {
      const opened = await this.#open(name, caller);
      let hasBegun = false;
      try {
        for await (const part of this.#threads.read({ view: opened.view, path }, opened.signal)) {
          hasBegun = true;
          opened.use.progress();
          if (!Buffer.isBuffer(part)) await this.#tell(containerArchived(opened.record.container));
          yield part;
          opened.use.progress();
        }
        return;
      } catch (error) {
        if (hasBegun || !mayTryAgain(opened, error, attempt)) throw reasonOf(error, { name, path, caller }, opened);
      } finally {
        await opened.close();
      }
      await this.#awaitEnd(opened);
    }
  }

  /**
   * Unpack a plain tar into a directory of the container. Nothing of the source is taken before the directory is found.
   *
   * @throws EngineError as `stat`; `invalidArgument` when it is no directory or the archive is none; `permissionDenied` when it is read-only.
   */
  async write(options: WriteOptions, source: AsyncIterable<Buffer>, caller: AbortSignal): Promise<void> {
    const { name, path, noOverwriteDirNonDir, copyUidGid } = options;
    await this.#within({ name, path, caller }, async ({ view, record, use, signal }) => {
      const { container: shown } = record;
      const owner = copyUidGid ? shown.config.user : '';
      const job = { view, path, rules: writeRules(record), noOverwriteDirNonDir, owner };
      await this.#threads.write(job, watched(source, use), signal);
      await this.#tell(containerExtracted(shown));
    });
  }

  async #within<T>(asked: Asked, work: (opened: OpenedView) => Promise<T>): Promise<T> {
    for (let attempt = 1; ; attempt++) {
      const opened = await this.#open(asked.name, asked.caller);
      try {
        return await work(opened);
      } catch (error) {
        if (!mayTryAgain(opened, error, attempt)) throw reasonOf(error, asked, opened);
      } finally {
        await opened.close();
      }
      await this.#awaitEnd(opened);
    }
  }

  async #mappedView({ internals }: ContainerRecord): Promise<MappedView> {
    const mappings = internals.userNamespace ?? undefined;
    return mappings === undefined ? {} : { idMap: await this.#context.idMaps.of(mappings) };
  }

  async #tell(event: EngineEvent): Promise<void> {
    await this.#context.store.commit((batch) => batch.emit(event));
  }

  /** The task has ended; soon its record says so. */
  async #awaitEnd({ record: { container: shown } }: OpenedView): Promise<void> {
    await this.#context.watchpoints.within(shown.id, endOfTaskMs, (now) =>
      now === undefined || !isLive(stateOf(now)) || now.container.state.pid !== shown.state.pid ? true : undefined,
    );
  }

  async #open(name: string, caller: AbortSignal): Promise<OpenedView> {
    const { store, locks } = this.#context;
    const { id } = store.resolve(name).container;
    // The same for all its life.
    const mapped = await this.#mappedView(requireThere(store.get(id), name));
    const live = this.#openLive(requireThere(store.get(id), name), mapped, caller);
    if (live !== undefined) return live;
    return locks.run(id, async () => {
      let record = requireThere(store.get(id), name);
      const started = this.#openLive(record, mapped, caller);
      if (started !== undefined) return started;
      await this.#context.layersGate.passed();
      await this.#context.rootfsUses.settle(id);
      record = requireThere(store.get(id), name);
      if (caller.aborted) throw cancelled('cancelled');
      return this.#openStopped(record, mapped, caller);
    });
  }

  /** Nothing is waited for here: the end of the container finds either no copy or one that it waits for. */
  #openLive(record: ContainerRecord, mapped: MappedView, caller: AbortSignal): OpenedView | undefined {
    if (!isLive(stateOf(record))) return undefined;
    const { id, state } = record.container;
    const use = this.#context.rootfsUses.begin(id);
    const view: ContainerView = {
      kind: 'running',
      pid: state.pid,
      rootfs: rootfsDir(this.#context.settings, id),
      destinations: record.internals.mounts.map(({ destination }) => destination),
      ...mapped,
    };
    const close = (): Promise<void> => {
      use.end();
      return Promise.resolve();
    };
    return { record, view, use, signal: AbortSignal.any([caller, use.signal]), close };
  }

  async #openStopped(record: ContainerRecord, mapped: MappedView, caller: AbortSignal): Promise<OpenedView> {
    const { id } = record.container;
    const use = this.#context.rootfsUses.begin(id);
    const close = async (): Promise<void> => {
      try {
        await this.#releaseSources(record);
      } finally {
        use.end();
      }
    };
    try {
      const view = await this.#stoppedView(record, mapped);
      return { record, view, use, signal: AbortSignal.any([caller, use.signal]), close };
    } catch (error) {
      await close();
      throw error;
    }
  }

  async #stoppedView(record: ContainerRecord, mapped: MappedView): Promise<StoppedView> {
    const { settings } = this.#context;
    const { container: shown } = record;
    // The directory is the mark by which a crash is recognised: what is mounted for a container without a task is let go.
    if (hasSources(record)) await makeBundle(settings, shown.id, mapped.idMap);
    const mounts = await resolveMounts(this.#context, record, mapped.idMap);
    await fillVolumes(this.#context, record, mounts, { idMap: mapped.idMap });
    const asked = mounts.flatMap(({ planned, source }): ViewMount[] => {
      if (planned.type === 'tmpfs') return [];
      const { destination, readOnly } = planned;
      const recursive = planned.type !== 'bind' || planned.recursive;
      return [{ source, destination, readOnly, recursive }];
    });
    return {
      kind: 'stopped',
      layers: { lower: shown.lowerDirs, upper: shown.upperDir, work: shown.workDir },
      target: archiveRoot(settings),
      ...mapped,
      readOnly: shown.hostConfig.readonlyRootfs,
      mounts: [...(await this.#etcMounts(record, asked)), ...asked].sort(
        (left, right) => depth(left.destination) - depth(right.destination),
      ),
    };
  }

  /** The files of the last run, as dockerd shows them. */
  async #etcMounts({ container: shown }: ContainerRecord, asked: readonly ViewMount[]): Promise<ViewMount[]> {
    const files = etcFilesIn(containerDir(this.#context.settings, shown.id));
    const wanted = [
      ['/etc/resolv.conf', files.resolvConf],
      ['/etc/hostname', files.hostname],
      ['/etc/hosts', files.hosts],
    ] as const;
    const found = await Promise.all(
      wanted.map(async ([destination, source]): Promise<ViewMount[]> => {
        if (asked.some((mount) => mount.destination === destination) || !(await pathExists(source))) return [];
        const { readonlyRootfs: readOnly } = shown.hostConfig;
        return [{ source, destination, readOnly, recursive: false }];
      }),
    );
    return found.flat();
  }

  async #releaseSources(record: ContainerRecord): Promise<void> {
    if (!hasSources(record)) return;
    const { peers, rootfs, settings, log } = this.#context;
    const { id } = record.container;
    try {
      await rootfs.close(rootfsDir(settings, id));
      if (hasVolumes(record)) await peers.volumes.unmountAll(id);
      // Not with what it may hold: should a root file system be mounted there still, that would be the container's files.
      await rmdir(bundleDir(settings, id));
    } catch (error) {
      // The mark stays: the next start or the removal of the container, or the next start of the service, does it again.
      log.warn({ containerId: id, reason: messageOf(error) }, 'mounts of a copy not released');
    }
  }
}

/** The part of a view that depends on the container's user namespace. */
type MappedView = Pick<ContainerView, 'idMap'>;

interface OpenedView {
  record: ContainerRecord;
  view: ContainerView;
  use: RootfsUse;
  /** Fires when the caller has gone or the use has to end. */
  signal: AbortSignal;
  close(): Promise<void>;
}

interface Asked {
  name: string;
  path: string;
  caller: AbortSignal;
}

/** Whether the container ended before anything was done in it. */
function mayTryAgain({ view, use }: OpenedView, error: unknown, attempt: number): boolean {
  return view.kind === 'running' && !use.signal.aborted && attempt < attempts && isEngineError(error, 'unavailable');
}

/** What the client reads: the use's reason when it was ended, Docker's sentence for a path that is not there. */
function reasonOf(error: unknown, { name, path, caller }: Asked, { use }: OpenedView): unknown {
  if (use.signal.aborted && !caller.aborted) return use.signal.reason;
  if (!isEngineError(error, 'notFound')) return error;
  return notFound(`Could not find the file ${path} in container ${name}`, { cause: error });
}

function requireThere(record: ContainerRecord | undefined, name: string): ContainerRecord {
  if (record === undefined || stateOf(record) === 'creating') throw notFound(`No such container: ${name}`);
  const { internals } = record;
  if (['removing', 'dead'].includes(stateOf(record)) || internals.removal !== null) {
    throw conflict(`container ${record.container.id} is being removed: nothing can be copied from or to it`);
  }
  return record;
}

function writeRules({ container: shown, internals }: ContainerRecord): WriteRules {
  const isRunning = isLive(stateOf({ container: shown }));
  return {
    mounts: internals.mounts
      .filter(({ type }) => isRunning || type !== 'tmpfs')
      .map(({ destination, readOnly }) => ({ destination, readOnly })),
    readOnlyRootfs: shown.hostConfig.readonlyRootfs,
  };
}

async function* watched(source: AsyncIterable<Buffer>, use: RootfsUse): AsyncGenerator<Buffer> {
  for await (const bytes of source) {
    use.progress();
    yield bytes;
  }
}

const depth = (path: string): number => path.split('/').filter((part) => part !== '').length;
