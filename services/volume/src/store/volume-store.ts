import type { Logger } from '@flotilla/log';
import { AsideEntries, checkedJsonCodec } from '@flotilla/store';
import type { Collection, EngineEvent, Store } from '@flotilla/store';
import type { VolumeRecord } from '../volumes/volume-record.js';

/** Version of `VolumeRecord`. */
export const volumeSchemaVersion = 1;

const isObject = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);
const isTexts = (value: unknown): boolean =>
  isObject(value) && Object.values(value).every((text) => typeof text === 'string');
const areOfContainers = (value: unknown): boolean =>
  Array.isArray(value) && value.every((one: unknown) => isObject(one) && typeof one['containerId'] === 'string');

/** Whether everything is there that is used without asking. */
function isWhole(record: unknown): boolean {
  return (
    isObject(record) &&
    ['name', 'driver', 'createdAtNs'].every((key) => typeof record[key] === 'string') &&
    /^\d{1,19}$/.test(record['createdAtNs'] as string) &&
    isTexts(record['labels']) &&
    isTexts(record['options']) &&
    (record['anonymous'] === null || isTexts(record['anonymous'])) &&
    areOfContainers(record['holders']) &&
    areOfContainers(record['mounts'])
  );
}

const recordCodec = checkedJsonCodec<VolumeRecord>(isWhole, 'it is no record of a volume');

/** What stands for a volume whose record is lost. */
function standIn(name: string, reason: string): VolumeRecord {
  return {
    ...{ name, driver: 'local', createdAtNs: '0', labels: {}, options: {}, anonymous: null, holders: [], mounts: [] },
    damage: `its record is damaged: ${reason}`,
  };
}

/** A volume that is made or changed, or the name of one that goes. */
export type VolumeChange = { readonly upsert: VolumeRecord } | { readonly removed: string };

/** One batch: volumes that change, events, and the reply to keep for the request. */
export interface VolumeCommit {
  changes: readonly VolumeChange[];
  events: readonly EngineEvent[];
  requestId?: string;
  /** Encodes the reply, given the revision that the batch will have. */
  reply?: (revision: bigint) => Uint8Array;
}

/** Told what is now true of volumes by name; `undefined`: gone. */
type ChangeListener = (revision: bigint, changes: readonly (readonly [string, VolumeRecord | undefined])[]) => void;

/** All volume records, in memory and durable. Reading is synchronous; what is read is durable. */
export class VolumeStore {
  readonly #store: Store;
  readonly #collection: Collection<VolumeRecord>;
  readonly #aside: AsideEntries;
  readonly #records = new Map<string, VolumeRecord>();
  /** Changes of batches on their way to the disk. */
  readonly #pending = new Map<bigint, readonly VolumeChange[]>();
  readonly #listeners = new Set<ChangeListener>();
  #revision: bigint;

  private constructor(store: Store, collection: Collection<VolumeRecord>, aside: AsideEntries) {
    this.#store = store;
    this.#aside = aside;
    this.#collection = collection;
    this.#revision = store.revision;
    store.onCommit((revision) => this.#apply(revision));
  }

  /** Read all records. What cannot be read is set aside, and its volume stands there as damaged. The caller keeps and closes the store. */
  static async load(store: Store, log: Pick<Logger, 'error'>): Promise<VolumeStore> {
    const collection = store.collection<VolumeRecord>('volumes', recordCodec);
    const aside = await AsideEntries.load(store);
    const volumes = new VolumeStore(store, collection, aside);
    const { entries, damaged } = await collection.salvage();
    for (const [key, record] of entries) {
      if (record.name === key) volumes.#records.set(key, record);
      else
        damaged.push({
          collection: collection.name,
          key,
          reason: 'it is of another volume',
          bytes: recordCodec.encode(record),
        });
    }
    if (damaged.length === 0) return volumes;
    for (const { key, reason } of damaged) log.error({ volume: key, reason }, 'a damaged record is set aside');
    await store.commit((batch) => {
      for (const entry of damaged) {
        aside.set(batch, collection, entry);
        const record = standIn(entry.key, entry.reason);
        batch.put(collection, entry.key, record);
        volumes.#records.set(entry.key, record);
      }
    });
    return volumes;
  }

  /** Of the last batch that changed a volume: what a watcher reaches. */
  get revision(): bigint {
    return this.#revision;
  }

  get(name: string): VolumeRecord | undefined {
    return this.#records.get(name);
  }

  list(): VolumeRecord[] {
    return [...this.#records.values()];
  }

  /** Resolves with the batch's revision when it is durable, visible and announced. */
  async commit({ changes, events, requestId = '', reply }: VolumeCommit): Promise<bigint> {
    let revision = 0n;
    try {
      return await this.#store.commit((batch) => {
        for (const change of changes) {
          const name = 'upsert' in change ? change.upsert.name : change.removed;
          if ('upsert' in change) batch.put(this.#collection, name, change.upsert);
          else batch.delete(this.#collection, name);
          if (this.#records.get(name)?.damage !== undefined) this.#aside.drop(batch, name);
        }
        for (const event of events) batch.emit({ ...event, requestId });
        if (reply !== undefined) batch.reply(requestId, reply(batch.revision));
        revision = batch.revision;
        if (changes.length > 0) this.#pending.set(revision, changes);
      });
    } catch (error) {
      this.#pending.delete(revision);
      throw error;
    }
  }

  /** Told of every durable change, in the order of revisions. */
  onChange(listener: ChangeListener): () => void {
    this.#listeners.add(listener);
    return () => {
      this.#listeners.delete(listener);
    };
  }

  #apply(revision: bigint): void {
    const changes = this.#pending.get(revision);
    if (changes === undefined) return;
    this.#pending.delete(revision);
    this.#revision = revision;
    const told = changes.map((change): [string, VolumeRecord | undefined] =>
      'upsert' in change ? [change.upsert.name, change.upsert] : [change.removed, undefined],
    );
    for (const [name, record] of told) {
      if (record === undefined) this.#records.delete(name);
      else this.#records.set(name, record);
    }
    for (const listener of [...this.#listeners]) listener(revision, told);
  }
}
