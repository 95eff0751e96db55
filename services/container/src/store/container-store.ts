import { alreadyExists, invalidArgument, notFound } from '@flotilla/errors';
import type { Logger } from '@flotilla/log';
import { container } from '@flotilla/proto';
import {
  AsideEntries,
  type Batch,
  type Codec,
  type Collection,
  type DamagedEntry,
  type EngineEvent,
  jsonCodec,
  messageCodec,
  type Store,
} from '@flotilla/store';
import {
  completeContainer,
  type ContainerInternals,
  type ContainerRecord,
  stateOf,
  type Tombstone,
} from './container-record.js';
import { isLive } from '../containers/state.js';
import { standIn } from './stand-in.js';

/** What is now true of a container; `undefined`: it is gone. */
export type ContainerChange = readonly [id: string, record: ContainerRecord | undefined];

interface ExecChange {
  readonly id: string;
  readonly execId: string;
  readonly isOpen: boolean;
}

type ChangeListener = (revision: bigint, changes: readonly ContainerChange[]) => void;

/** What one batch does, see `ContainerStore.commit`. */
export interface ContainerBatch {
  readonly revision: bigint;
  put(record: Pick<ContainerRecord, 'container' | 'internals'>): void;
  remove(id: string, tombstone?: Tombstone): void;
  emit(event: EngineEvent): void;
  /** An exec of a container now is, or is no longer, one that can be started or runs. Written by `also`. */
  noteExec(id: string, execId: string, isOpen: boolean): void;
  /** What another collection of the same store has to say in this batch. */
  also(write: (batch: Batch) => void): void;
  /** The empty id stands for a caller that needs no answer. */
  reply(requestId: string, payload: Uint8Array): void;
}

export const schemaVersion = 1;
const tombstoneLifeMs = 10 * 60_000;

/**
 * Every container of the engine: durable in LevelDB, and held in memory with indexes by id, prefix and name.
 *
 * Readers get immutable records. A change becomes visible when it is durable, and changes are announced in the order of their revisions.
 */
export class ContainerStore {
  readonly #store: Store;
  readonly #log: Logger;
  readonly #shown: Collection<container.Container>;
  readonly #internals: Collection<ContainerInternals>;
  readonly #tombstoneEntries: Collection<Tombstone>;
  readonly #engine: Collection<string>;
  readonly #records = new Map<string, ContainerRecord>();
  readonly #names = new Map<string, string>();
  readonly #tombstones = new Map<string, Tombstone>();
  readonly #pending = new Map<bigint, (ContainerChange | ExecChange)[]>();
  /** Execs to be shown, by container; they have records of their own. */
  readonly #openExecs = new Map<string, Set<string>>();
  readonly #damaged: AsideEntries;
  readonly #listeners = new Set<ChangeListener>();

  private constructor(store: Store, damaged: AsideEntries, log: Logger) {
    this.#store = store;
    this.#log = log;
    this.#shown = store.collection('containers', shownCodec);
    this.#internals = store.collection('container-internals', internalsCodec);
    this.#tombstoneEntries = store.collection('tombstones', jsonCodec<Tombstone>());
    this.#engine = store.collection('engine', jsonCodec<string>());
    this.#damaged = damaged;
    store.onCommit((revision) => this.#publish(revision));
  }

  /** Read everything. What cannot be read is set aside, and its container stands there as dead. */
  static async load(store: Store, log: Logger): Promise<ContainerStore> {
    const self = new ContainerStore(store, await AsideEntries.load(store), log);
    const [shown, internals, tombstones, engine] = await Promise.all([
      self.#shown.salvage(),
      self.#internals.salvage(),
      self.#tombstoneEntries.salvage(),
      self.#engine.salvage(),
    ]);
    const known = new Map(internals.entries);
    const shownById = new Map(shown.entries);
    const lost = [...shown.damaged, ...internals.damaged].map(({ key }) => key);
    for (const [id, container] of shown.entries) {
      const rest = known.get(id);
      if (rest === undefined) lost.push(id);
      else self.#index({ container: completeContainer(container), internals: rest, revision: store.revision });
    }
    for (const [id] of internals.entries) if (!shownById.has(id)) lost.push(id);
    for (const [id, tombstone] of tombstones.entries) self.#tombstones.set(id, tombstone);
    const damaged: [Collection<unknown>, DamagedEntry[]][] = [
      [self.#shown, shown.damaged],
      [self.#internals, internals.damaged],
      [self.#tombstoneEntries, tombstones.damaged],
      [self.#engine, engine.damaged],
    ];
    for (const { collection, key, reason } of damaged.flatMap(([, entries]) => entries)) {
      log.error({ record: `${collection}/${key}`, reason }, 'a damaged record is set aside');
    }
    const standIns = [...new Set(lost)].map((id) =>
      standIn(id, shownById.get(id), known.get(id), `its record is damaged: ${reasonOf(id, damaged)}`),
    );
    if (standIns.length === 0 && damaged.every(([, entries]) => entries.length === 0)) return self;
    await self.commit((batch) => {
      batch.also((own) => {
        for (const [from, entries] of damaged) for (const entry of entries) self.#damaged.set(own, from, entry);
      });
      for (const record of standIns) batch.put(record);
    });
    return self;
  }

  /** Set damaged entries of another collection of the same store aside. */
  async setAside(from: Collection<unknown>, damaged: readonly DamagedEntry[]): Promise<void> {
    if (damaged.length === 0) return;
    await this.#store.commit((batch) => {
      for (const entry of damaged) this.#damaged.set(batch, from, entry);
    });
    for (const { collection, key, reason } of damaged) {
      this.#log.error({ record: `${collection}/${key}`, reason }, 'a damaged record is set aside');
    }
  }

  /** After a load: execs that can be started or run. */
  restoreExecs(execs: Iterable<{ readonly id: string; readonly containerId: string }>): void {
    for (const { id: execId, containerId: id } of execs) {
      this.#apply({ id, execId, isOpen: true }, this.#store.revision);
    }
  }

  /** Whether a container has execs that can be started or run. */
  hasOpenExecs(id: string): boolean {
    return this.#openExecs.has(id);
  }

  get revision(): bigint {
    return this.#store.revision;
  }

  get(id: string): ContainerRecord | undefined {
    return this.#records.get(id);
  }

  /** All records, also those that are being created. */
  all(): ContainerRecord[] {
    return [...this.#records.values()];
  }

  tombstone(id: string): Tombstone | undefined {
    return this.#tombstones.get(id);
  }

  isNameTaken(name: string): boolean {
    return this.#names.has(name);
  }

  /**
   * The container of an id, a name or a unique id prefix, in this order. One that is still being created is not found.
   *
   * @throws EngineError `notFound` `No such container: x`; `invalidArgument` for an ambiguous prefix.
   */
  resolve(name: string): ContainerRecord {
    const bare = name.startsWith('/') ? name.slice(1) : name;
    const exact = this.#records.get(bare) ?? this.#records.get(this.#names.get(bare) ?? '');
    if (exact !== undefined && stateOf(exact) !== 'creating') return exact;
    const matches = /^[0-9a-f]{1,63}$/.test(bare)
      ? this.all().filter((record) => record.container.id.startsWith(bare) && stateOf(record) !== 'creating')
      : [];
    if (matches.length > 1) throw invalidArgument(`Multiple IDs found with provided prefix: ${name}`);
    const [only] = matches;
    if (only === undefined) throw notFound(`No such container: ${name}`);
    return only;
  }

  /**
   * Take a name for a container, at once and in memory: of many callers one wins. It is kept by the record that is committed with it, or
   * given back by `releaseName`.
   *
   * @throws EngineError `alreadyExists` in dockerd's words.
   */
  reserveName(name: string, id: string): void {
    const holder = this.#names.get(name);
    if (holder === id) return;
    if (holder !== undefined) {
      throw alreadyExists(
        `Conflict. The container name "/${name}" is already in use by container "${holder}". You have to remove (or rename) that container to be able to reuse that name.`,
      );
    }
    this.#names.set(name, id);
  }

  releaseName(name: string, id: string): void {
    if (this.#names.get(name) === id) this.#names.delete(name);
  }

  /** One durable batch; resolves with its revision when it is on the disk and visible. */
  commit(build: (batch: ContainerBatch) => void): Promise<bigint> {
    let revision: bigint | undefined;
    const written = this.#store.commit((batch) => {
      revision = batch.revision;
      build(this.#wrap(batch));
    });
    return written.catch((error: unknown) => {
      if (revision !== undefined) this.#pending.delete(revision);
      throw error;
    });
  }

  /** What `noteEngineStart` was told last. */
  lastEngineStart(): Promise<string | undefined> {
    return this.#engine.get('start');
  }

  /** Remember which start of the engine this is. @returns whether it is another one than at the last start of the service. */
  async noteEngineStart(mark: string): Promise<boolean> {
    if ((await this.#engine.get('start')) === mark) return false;
    await this.#store.commit((batch) => batch.put(this.#engine, 'start', mark));
    return true;
  }

  /** Be told of every durable batch, in the order of revisions. @returns a function that ends the subscription. */
  onChange(listener: ChangeListener): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Forget containers that were removed long ago. */
  async dropOldTombstones(): Promise<void> {
    const limit = Date.now() - tombstoneLifeMs;
    const old = [...this.#tombstones].filter(([, tombstone]) => tombstone.removedAtMs < limit).map(([id]) => id);
    if (old.length === 0) return;
    await this.#store.commit((batch) => {
      for (const id of old) batch.delete(this.#tombstoneEntries, id);
    });
    for (const id of old) this.#tombstones.delete(id);
  }

  #wrap(batch: Batch): ContainerBatch {
    const changes: (ContainerChange | ExecChange)[] = [];
    this.#pending.set(batch.revision, changes);
    return {
      revision: batch.revision,
      put: (record) => {
        const { id } = record.container;
        batch.put(this.#shown, id, { ...record.container, execIds: [] });
        batch.put(this.#internals, id, record.internals);
        const { container: shown, internals } = record;
        changes.push([id, { container: shown, internals, revision: batch.revision }]);
      },
      remove: (id, tombstone) => {
        batch.delete(this.#shown, id);
        batch.delete(this.#internals, id);
        this.#damaged.drop(batch, id);
        if (tombstone !== undefined) {
          batch.put(this.#tombstoneEntries, id, tombstone);
          this.#tombstones.set(id, tombstone);
        }
        changes.push([id, undefined]);
      },
      emit: (event) => batch.emit(event),
      noteExec: (id, execId, isOpen) => changes.push({ id, execId, isOpen }),
      also: (write) => write(batch),
      reply: (requestId, payload) => {
        if (requestId !== '') batch.reply(requestId, payload);
      },
    };
  }

  #publish(revision: bigint): void {
    const pending = this.#pending.get(revision);
    if (pending === undefined) return;
    this.#pending.delete(revision);
    const changes = pending.flatMap((change) => this.#apply(change, revision));
    for (const listener of [...this.#listeners]) listener(revision, changes);
  }

  #apply(change: ContainerChange | ExecChange, revision: bigint): ContainerChange[] {
    if ('execId' in change) {
      const record = this.#records.get(change.id);
      if (record === undefined) return [];
      this.#setExec(change);
      return [[change.id, this.#index({ ...record, revision })]];
    }
    const [id, record] = change;
    if (record !== undefined) return [[id, this.#index(record)]];
    this.#drop(id);
    return [change];
  }

  #setExec({ id, execId, isOpen }: ExecChange): void {
    const open = this.#openExecs.get(id) ?? new Set();
    if (isOpen) open.add(execId);
    else open.delete(execId);
    if (open.size > 0) this.#openExecs.set(id, open);
    else this.#openExecs.delete(id);
  }

  /** @returns the record as it is shown: whoever made it may not have known of the newest execs. */
  #index(made: ContainerRecord): ContainerRecord {
    const { id, name } = made.container;
    const before = this.#records.get(id)?.container.name;
    if (before !== undefined && before !== name) this.releaseName(before, id);
    const execIds = isLive(stateOf(made)) ? [...(this.#openExecs.get(id) ?? [])] : [];
    const record = { ...made, container: { ...made.container, execIds } };
    this.#records.set(id, record);
    this.#names.set(name, id);
    return record;
  }

  #drop(id: string): void {
    const record = this.#records.get(id);
    this.#records.delete(id);
    this.#openExecs.delete(id);
    if (record !== undefined) this.releaseName(record.container.name, id);
  }
}

/** Damaged bytes often decode, to something that is no container. */
const shownCodec = checked(messageCodec(container.Container), ({ id }) => /^[0-9a-f]{64}$/.test(id));
const internalsCodec = checked(
  jsonCodec<ContainerInternals>(),
  (value: Partial<ContainerInternals> | null) => Array.isArray(value?.mounts) && value.network !== undefined,
);

function checked<T>(codec: Codec<T>, isOne: (value: T) => boolean): Codec<T> {
  return {
    encode: (value) => codec.encode(value),
    decode: (bytes) => {
      const value = codec.decode(bytes);
      if (!isOne(value)) throw new Error('it holds no such record');
      return value;
    },
  };
}

function reasonOf(id: string, damaged: readonly [Collection<unknown>, DamagedEntry[]][]): string {
  const own = damaged.flatMap(([, entries]) => entries).filter(({ key }) => key === id);
  return own.length === 0
    ? 'a part of it is missing'
    : own.map(({ collection, reason }) => `${collection}: ${reason}`).join('; ');
}
