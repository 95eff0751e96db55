import { jsonCodec } from '@flotilla/store';
import type { Collection, EngineEvent, Store } from '@flotilla/store';
import type { VolumeRecord } from '../volumes/volume-record.js';

/** Version of `VolumeRecord`. */
export const volumeSchemaVersion = 1;

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
  readonly #records = new Map<string, VolumeRecord>();
  /** Changes of batches on their way to the disk. */
  readonly #pending = new Map<bigint, readonly VolumeChange[]>();
  readonly #listeners = new Set<ChangeListener>();
  #revision: bigint;

  private constructor(store: Store, collection: Collection<VolumeRecord>) {
    this.#store = store;
    this.#collection = collection;
    this.#revision = store.revision;
    store.onCommit((revision) => this.#apply(revision));
  }

  /** Read all records. The caller keeps and closes the store. */
  static async load(store: Store): Promise<VolumeStore> {
    const collection = store.collection<VolumeRecord>('volumes', jsonCodec<VolumeRecord>());
    const volumes = new VolumeStore(store, collection);
    for await (const [name, record] of collection.entries()) volumes.#records.set(name, record);
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
          if ('upsert' in change) batch.put(this.#collection, change.upsert.name, change.upsert);
          else batch.delete(this.#collection, change.removed);
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
