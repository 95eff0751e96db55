import { randomBytes } from 'node:crypto';
import { EngineError, conflict, dataLoss, messageOf, notFound } from '@flotilla/errors';
import type { Logger } from '@flotilla/log';
import type { HybridClock, KeyedLocks } from '@flotilla/store';
import pLimit from 'p-limit';
import { copyStaging } from '../drivers/volume-driver.js';
import type { DetachedVolume, VolumeContent, VolumeDriver } from '../drivers/volume-driver.js';
import type { VolumeChange, VolumeStore } from '../store/volume-store.js';
import { volumeCreated, volumeDestroyed, volumeMounted, volumeUnmounted, volumesPruned } from './volume-events.js';
import type { VolumeHolder, VolumeMount, VolumeRecord } from './volume-record.js';

/** Set on volumes made without a name; `docker volume prune` goes by it. */
export const anonymousLabel = 'com.docker.volume.anonymous';

export interface VolumesDeps {
  store: VolumeStore;
  drivers: ReadonlyMap<string, VolumeDriver>;
  locks: KeyedLocks;
  clock: HybridClock;
  /** Milliseconds since the epoch. */
  now: () => number;
  log: Pick<Logger, 'warn'>;
}

/** A mutating request: its id, and how its result is kept for a repetition. */
export interface Mutation<R> {
  requestId: string;
  /** Fires when the caller has gone: it waits for its turn no longer. What has begun is finished. */
  signal?: AbortSignal;
  encode: (result: R) => Uint8Array;
}

export interface VolumeSpec {
  /** Empty: 64 random hex digits. */
  name: string;
  /** Empty: local, or whatever the volume has that exists. */
  driver: string;
  options: Readonly<Record<string, string>>;
  labels: Readonly<Record<string, string>>;
}

export interface AcquireSpec extends VolumeSpec {
  containerId: string;
  containerName: string;
  destination: string;
  /** The name is not the user's. */
  isAnonymous: boolean;
}

export interface VolumeResult {
  volume: VolumeRecord;
  revision: bigint;
  created: boolean;
}

export interface RemovedResult {
  removed: string[];
  revision: bigint;
}

export interface PruneResult extends RemovedResult {
  reclaimedBytes: bigint;
}

export interface MountSpec {
  containerId: string;
  name: string;
  destination: string;
  readOnly: boolean;
  propagation: string;
}

export interface MountedVolume {
  path: string;
  /** Nothing was ever written to it, or a copy of image content was cut. */
  isFresh: boolean;
  content: VolumeContent;
  /** See the driver. */
  copyStaging: string;
}

export interface PruneSpec {
  /** Named volumes too. */
  all: boolean;
  accepts: (record: VolumeRecord) => boolean;
}

/**
 * A container may have acquired a volume after the container service took its list of living ones, and that list may be delivered late by a retry
 * (10 s): claims younger than this are left to the next reconciliation.
 */
const reconcileGraceMs = 15_000;
/** How long a prune waits for one volume. */
const pruneWaitMs = 2_000;
/** As many as there are threads side by side. */
const measuredAtOnce = 4;

/** The rules of volumes: names, who holds what, when files are mounted and deleted. */
export class Volumes {
  readonly #deps: VolumesDeps;
  #isPruning = false;

  constructor(deps: VolumesDeps) {
    this.#deps = deps;
  }

  /** @throws EngineError `notFound` */
  get(name: string): VolumeRecord {
    const record = this.#deps.store.get(name);
    if (record === undefined) throw notFound(`get ${name}: no such volume`);
    return record;
  }

  driverOf(record: VolumeRecord): VolumeDriver {
    return this.#driver(record.driver, `get ${record.name}`);
  }

  /**
   * Make a volume, or return the one of that name.
   *
   * @throws EngineError `invalidArgument` for a bad name or option, `notFound` for an unknown driver, `conflict` if it exists with another driver or options.
   */
  async create(spec: VolumeSpec, mutation: Mutation<VolumeResult>): Promise<VolumeResult> {
    const name = spec.name === '' ? randomName() : spec.name;
    return this.#deps.locks.run(
      name,
      () => {
        const existing = this.#deps.store.get(name);
        // Of a damaged one the files are all there is: they are taken over.
        if (existing !== undefined && existing.damage === undefined) {
          checkSame(existing, spec);
          return { volume: existing, revision: this.#deps.store.revision, created: false };
        }
        const anonymous = spec.name === '' ? { containerId: '', destination: '' } : null;
        return this.#make(this.#newRecord(name, spec, anonymous, []), mutation);
      },
      mutation.signal,
    );
  }

  /**
   * Record that a container uses a volume; the volume is made if needed. The same call again changes nothing.
   *
   * @throws EngineError as `create`.
   */
  async acquire(spec: AcquireSpec, mutation: Mutation<VolumeResult>): Promise<VolumeResult> {
    const { containerId, containerName, destination } = spec;
    const holder: VolumeHolder = {
      ...{ containerId, containerName, isNamed: spec.name !== '' && !spec.isAnonymous },
      acquiredAt: this.#deps.now(),
    };
    // Retries of one container come one after the other, so that an unnamed volume is found again.
    const { signal } = mutation;
    return this.#deps.locks.run(
      `\0${containerId}`,
      () => {
        const name = spec.name !== '' ? spec.name : (this.#anonymousOf(containerId, destination) ?? randomName());
        return this.#deps.locks.run(
          name,
          async () => {
            const existing = this.#deps.store.get(name);
            if (existing === undefined) {
              const anonymous = spec.name === '' ? { containerId, destination } : null;
              return this.#make(this.#newRecord(name, spec, anonymous, [holder]), mutation);
            }
            checkWhole(existing);
            checkSame(existing, spec);
            const before = existing.holders.find((one) => one.containerId === containerId);
            if (before?.containerName === containerName) {
              return { volume: existing, revision: this.#deps.store.revision, created: false };
            }
            // Renamed since: the claim is the same.
            const holders = [
              ...existing.holders.filter((one) => one !== before),
              before ? { ...before, containerName } : holder,
            ];
            const volume = { ...existing, holders };
            const result = (revision: bigint) => ({ volume, revision, created: false });
            const revision = await this.#commit([{ upsert: volume }], [], mutation, result);
            return result(revision);
          },
          signal,
        );
      },
      signal,
    );
  }

  /** Drop all claims and mounts of a container; with `removeAnonymous`, volumes that were made for it and that nobody else holds go too. */
  async release(
    containerId: string,
    removeAnonymous: boolean,
    mutation: Mutation<RemovedResult>,
  ): Promise<RemovedResult> {
    const { signal } = mutation;
    return this.#deps.locks.run(
      `\0${containerId}`,
      () =>
        this.#withLocked(
          this.#touchedBy(containerId),
          async (records) => {
            const goes = (record: VolumeRecord) =>
              removeAnonymous &&
              record.anonymous !== null &&
              record.holders.every((holder) => holder.containerId === containerId && !holder.isNamed);
            const kept = records.filter((record) => !goes(record));
            const going = records.filter(goes);
            const changes: VolumeChange[] = [];
            for (const record of kept) {
              changes.push({ upsert: await this.#dropMounts(withoutHolder(record, containerId), containerId) });
            }
            return this.#remove(
              going,
              changes,
              kept.flatMap((record) => unmountEvents(record, containerId)),
              mutation,
            );
          },
          signal,
        ),
      signal,
    );
  }

  /**
   * Remove a volume and its files.
   *
   * @throws EngineError `notFound` (not with `force`); `conflict` while a container holds it, or may hold it (not with `force`).
   */
  async remove(name: string, force: boolean, mutation: Mutation<RemovedResult>): Promise<RemovedResult> {
    return this.#withLocked(
      [name],
      ([record]) => {
        if (record === undefined) {
          if (!force) throw notFound(`get ${name}: no such volume`);
          return Promise.resolve({ removed: [], revision: this.#deps.store.revision });
        }
        checkUnused(record, force);
        return this.#remove([record], [], [], mutation);
      },
      mutation.signal,
    );
  }

  /**
   * Remove all accepted volumes that certainly nobody holds; one that cannot be removed, or that somebody is at work on, stays.
   *
   * @throws EngineError `conflict` while another prune runs.
   */
  async prune({ all, accepts }: PruneSpec, mutation: Mutation<PruneResult>): Promise<PruneResult> {
    if (this.#isPruning) throw conflict('a prune operation is already running');
    this.#isPruning = true;
    try {
      const removed: string[] = [];
      let reclaimedBytes = 0n;
      const isUnused = (record: VolumeRecord) =>
        record.damage === undefined &&
        record.holders.length === 0 &&
        (all || record.labels[anonymousLabel] !== undefined) &&
        accepts(record);
      for (const { name } of this.#deps.store.list().filter(isUnused)) {
        mutation.signal?.throwIfAborted();
        const work = this.#withLocked(
          [name],
          async ([record]) => {
            if (record === undefined || !isUnused(record)) return;
            const bytes = await this.#measure(record);
            await this.#remove([record], [], [], { requestId: '', encode: () => new Uint8Array() });
            removed.push(name);
            if (bytes > 0n) reclaimedBytes += bytes;
          },
          AbortSignal.timeout(pruneWaitMs),
        );
        await work.catch((error: unknown) => {
          this.#deps.log.warn({ volume: name, reason: messageOf(error) }, 'volume not pruned');
        });
      }
      const result = { removed, reclaimedBytes, revision: this.#deps.store.revision };
      await this.#commit([], [volumesPruned(reclaimedBytes)], mutation, () => result);
      return result;
    } finally {
      this.#isPruning = false;
    }
  }

  /**
   * Make a volume's files available to a container that starts. Same call again: same answer.
   *
   * @throws EngineError `notFound`; `internal` with the kernel's reason when it cannot be mounted.
   */
  async mount(spec: MountSpec, requestId: string, signal?: AbortSignal): Promise<MountedVolume> {
    const { name, ...mount } = spec;
    return this.#withLocked(
      [name],
      async ([record]) => {
        if (record === undefined) throw notFound(`get ${name}: no such volume`);
        checkWhole(record);
        const driver = this.#driver(record.driver, `mount ${name}`);
        await driver.mount(record, signal);
        const isRecorded = record.mounts.some((one) => isSamePlace(one, mount));
        if (!isRecorded) {
          const mounts = [...record.mounts, mount];
          // Its claim was lost with a record that was damaged.
          const isHeld = record.holders.some(({ containerId }) => containerId === mount.containerId);
          const lost = {
            ...{ containerId: mount.containerId, containerName: '', isNamed: record.anonymous === null },
            acquiredAt: this.#deps.now(),
          };
          const holders = isHeld ? record.holders : [...record.holders, lost];
          try {
            await this.#deps.store.commit({
              changes: [{ upsert: { ...record, holders, mounts } }],
              events: [volumeMounted(record, mount)],
              requestId,
            });
          } catch (error) {
            if (record.mounts.length === 0) await driver.unmount(record).catch(() => undefined);
            throw error;
          }
        }
        const isFresh = await driver.isFresh(record, signal);
        return {
          path: driver.pathOf(name),
          isFresh,
          content: driver.contentOf(record),
          copyStaging: copyStaging(record),
        };
      },
      signal,
    );
  }

  /** Undo all mounts of a container. */
  async unmount(containerId: string, requestId: string, signal?: AbortSignal): Promise<void> {
    const names = this.#touchedBy(containerId).filter((name) => {
      return this.#deps.store.get(name)?.mounts.some((mount) => mount.containerId === containerId);
    });
    await this.#withLocked(
      names,
      async (records) => {
        const changes: VolumeChange[] = [];
        for (const record of records) changes.push({ upsert: await this.#dropMounts(record, containerId) });
        const events = records.flatMap((record) => unmountEvents(record, containerId));
        if (changes.length > 0) await this.#deps.store.commit({ changes, events, requestId });
      },
      signal,
    );
  }

  /** Drop claims and mounts of containers that are not among the living. @returns the ids that were dropped. */
  async reconcile(liveContainerIds: ReadonlySet<string>): Promise<string[]> {
    const before = this.#deps.now() - reconcileGraceMs;
    const dead = new Set<string>();
    for (const record of this.#deps.store.list()) {
      for (const { containerId, acquiredAt } of record.holders) {
        if (!liveContainerIds.has(containerId) && acquiredAt <= before) dead.add(containerId);
      }
      for (const { containerId } of record.mounts) {
        const isHeld = record.holders.some((holder) => holder.containerId === containerId);
        if (!liveContainerIds.has(containerId) && !isHeld) dead.add(containerId);
      }
    }
    for (const containerId of dead) {
      await this.release(containerId, false, { requestId: '', encode: () => new Uint8Array() });
    }
    return [...dead];
  }

  /** Bytes per wanted volume; -1 where unknown, or where the file system does not answer. */
  async usage(
    isWanted: (record: VolumeRecord) => boolean,
    signal: AbortSignal,
  ): Promise<{ volume: VolumeRecord; sizeBytes: bigint }[]> {
    const limit = pLimit(measuredAtOnce);
    const wanted = this.#deps.store.list().filter(isWanted);
    return Promise.all(
      wanted.map((volume) => limit(async () => ({ volume, sizeBytes: await this.#measure(volume, signal) }))),
    );
  }

  async #measure(record: VolumeRecord, signal?: AbortSignal): Promise<bigint> {
    try {
      return await this.driverOf(record).measure(record, signal);
    } catch {
      // A driver that is away leaves its volumes without a size.
      signal?.throwIfAborted();
      return -1n;
    }
  }

  #newRecord(
    name: string,
    spec: VolumeSpec,
    anonymous: VolumeRecord['anonymous'],
    holders: readonly VolumeHolder[],
  ): VolumeRecord {
    return {
      name,
      driver: spec.driver === '' ? 'local' : spec.driver,
      createdAtNs: this.#deps.clock.now().toString(),
      labels: anonymous === null ? spec.labels : { ...spec.labels, [anonymousLabel]: '' },
      options: spec.options,
      anonymous,
      holders,
      mounts: [],
    };
  }

  async #make(volume: VolumeRecord, mutation: Mutation<VolumeResult>): Promise<VolumeResult> {
    const { name, options } = volume;
    const driver = this.#driver(volume.driver, `create ${name}`);
    await inWords(`create ${name}`, async () => {
      driver.check(name, options);
      await driver.create(name, options);
    });
    const result = (revision: bigint) => ({ volume, revision, created: true });
    try {
      return result(await this.#commit([{ upsert: volume }], [volumeCreated(volume)], mutation, result));
    } catch (error) {
      await driver.discard(name).catch(() => undefined);
      throw error;
    }
  }

  /** Detach, record, then delete: a crash in between either keeps the whole volume or none of it. */
  async #remove(
    going: readonly VolumeRecord[],
    changes: readonly VolumeChange[],
    events: readonly ReturnType<typeof volumeUnmounted>[],
    mutation: Mutation<RemovedResult>,
  ): Promise<RemovedResult> {
    const removed = going.map(({ name }) => name);
    if (going.length === 0 && changes.length === 0) return { removed, revision: this.#deps.store.revision };
    const detached: DetachedVolume[] = [];
    const result = (revision: bigint) => ({ removed, revision });
    let revision: bigint;
    try {
      for (const record of going) {
        const driver = this.#driver(record.driver, `remove ${record.name}`);
        detached.push(await inWords(`remove ${record.name}`, () => driver.detach(record)));
      }
      revision = await this.#commit(
        [...changes, ...removed.map((name) => ({ removed: name }))],
        [...events, ...going.map(volumeDestroyed)],
        mutation,
        result,
      );
    } catch (error) {
      for (const one of detached) await one.undo().catch(() => undefined);
      throw error;
    }
    for (const one of detached) await one.finish();
    return result(revision);
  }

  async #dropMounts(record: VolumeRecord, containerId: string): Promise<VolumeRecord> {
    const mounts = record.mounts.filter((mount) => mount.containerId !== containerId);
    if (mounts.length === record.mounts.length) return record;
    if (mounts.length === 0) await this.#driver(record.driver, `unmount ${record.name}`).unmount(record);
    return { ...record, mounts };
  }

  #commit<R>(
    changes: readonly VolumeChange[],
    events: readonly ReturnType<typeof volumeCreated>[],
    mutation: Mutation<R>,
    result: (revision: bigint) => R,
  ): Promise<bigint> {
    const { requestId, encode } = mutation;
    return this.#deps.store.commit({ changes, events, requestId, reply: (revision) => encode(result(revision)) });
  }

  /** Run with the locks of these volumes, on those of them that exist by then. */
  #withLocked<T>(
    names: readonly string[],
    fn: (records: VolumeRecord[]) => Promise<T>,
    signal: AbortSignal | undefined,
  ): Promise<T> {
    return this.#deps.locks.run(
      names,
      () => fn(names.map((name) => this.#deps.store.get(name)).filter((record) => record !== undefined)),
      signal,
    );
  }

  #touchedBy(containerId: string): string[] {
    const touches = ({ holders, mounts }: VolumeRecord) =>
      holders.some((holder) => holder.containerId === containerId) ||
      mounts.some((mount) => mount.containerId === containerId);
    return this.#deps.store
      .list()
      .filter(touches)
      .map(({ name }) => name);
  }

  #anonymousOf(containerId: string, destination: string): string | undefined {
    return this.#deps.store
      .list()
      .find((record) => record.anonymous?.containerId === containerId && record.anonymous.destination === destination)
      ?.name;
  }

  #driver(name: string, what: string): VolumeDriver {
    const driver = this.#deps.drivers.get(name);
    if (driver !== undefined) return driver;
    throw notFound(`${what}: error looking up volume plugin ${name}: plugin ${JSON.stringify(name)} not found`);
  }
}

const randomName = () => randomBytes(32).toString('hex');

const withoutHolder = (record: VolumeRecord, containerId: string): VolumeRecord => ({
  ...record,
  holders: record.holders.filter((holder) => holder.containerId !== containerId),
});

const isSamePlace = (a: VolumeMount, b: VolumeMount) =>
  a.containerId === b.containerId && a.destination === b.destination;

function unmountEvents(record: VolumeRecord, containerId: string) {
  return record.mounts
    .filter((mount) => mount.containerId === containerId)
    .map(() => volumeUnmounted(record, containerId));
}

function checkUnused({ name, holders, damage }: VolumeRecord, force: boolean): void {
  // Who held it was in the record.
  if (damage !== undefined && !force) {
    throw conflict(`remove ${name}: a container may use the volume, ${damage}; its files are deleted only by force`);
  }
  if (holders.length === 0) return;
  const ids = holders.map(({ containerId }) => containerId);
  throw conflict(`remove ${name}: volume is in use - [${ids.join(', ')}]`);
}

function checkWhole({ name, damage }: VolumeRecord): void {
  if (damage === undefined) return;
  throw dataLoss(
    `volume ${name} cannot be used: ${damage}; create it again with the options that it had, its files are kept`,
  );
}

// A caller who names no driver or no options takes the volume as it is.
function checkSame(existing: VolumeRecord, spec: VolumeSpec): void {
  const { name, driver } = existing;
  if (spec.driver !== '' && spec.driver !== driver) {
    throw conflict(`create ${name}: driver '${driver}' already has volume '${name}': volume name must be unique`);
  }
  const wanted = Object.entries(spec.options);
  if (wanted.length === 0) return;
  const isSame =
    wanted.length === Object.keys(existing.options).length &&
    wanted.every(([key, value]) => existing.options[key] === value);
  if (!isSame) throw conflict(`create ${name}: volume '${name}' already exists with different options`);
}

/** What a driver says, with the operation and the volume in front, as dockerd's volume store does. */
async function inWords<T>(what: string, fn: () => Promise<T>): Promise<T> {
  try {
    return await fn();
  } catch (error) {
    if (!(error instanceof EngineError)) throw error;
    throw new EngineError(error.kind, `${what}: ${error.message}`, { cause: error });
  }
}
