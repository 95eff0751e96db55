import type { Logger } from '@flotilla/log';
import { AsideEntries, checkedJsonCodec } from '@flotilla/store';
import type { Batch, Codec, Collection, EngineEvent, Store } from '@flotilla/store';
import type { NetworkRecord, SandboxRecord } from './records.js';

export const networkSchemaVersion = 1;

/** What changes together. */
export interface NetworkChange {
  putNetworks?: NetworkRecord[];
  removeNetworks?: NetworkRecord[];
  putSandboxes?: SandboxRecord[];
  removeSandboxes?: SandboxRecord[];
  events?: EngineEvent[];
  /** Records the answer for a repeated request in the same batch. */
  receipt?: Receipt;
}

/** Called with the batch of a change, to add the answer to a repeated request. */
export type Receipt = (batch: Batch) => void;

/** Told of the networks, by id, whose shown state changed; `undefined`: gone. */
type ChangeListener = (revision: bigint, changes: readonly (readonly [string, NetworkRecord | undefined])[]) => void;

/** What the service cannot start without. */
function recordCodec<T>(isWhole: (record: Partial<T>) => boolean): Codec<T> {
  return checkedJsonCodec<T>(
    (record) => typeof record === 'object' && record !== null && isWhole(record),
    'fields are missing',
  );
}

const networkCodec = recordCodec<NetworkRecord>(
  ({ id, name, driver, createdAtNs, ipam }) =>
    [id, name, driver].every((text) => typeof text === 'string') &&
    /^\d+$/.test(createdAtNs ?? '') &&
    Array.isArray(ipam?.pools),
);
const sandboxCodec = recordCodec<SandboxRecord>(
  ({ containerId, endpoints, ports }) =>
    typeof containerId === 'string' && Array.isArray(endpoints) && Array.isArray(ports),
);

/** The service's records: durable in the store, all of them in memory for reading. */
export class NetworkStore {
  readonly #store: Store;
  readonly #networkCollection: Collection<NetworkRecord>;
  readonly #sandboxCollection: Collection<SandboxRecord>;
  readonly #networks = new Map<string, NetworkRecord>();
  readonly #sandboxes = new Map<string, SandboxRecord>();
  readonly #listeners = new Set<ChangeListener>();
  #aside: AsideEntries | undefined;
  #revision: bigint;

  private constructor(store: Store) {
    this.#store = store;
    this.#revision = store.revision;
    this.#networkCollection = store.collection('networks', networkCodec);
    this.#sandboxCollection = store.collection('sandboxes', sandboxCodec);
  }

  /**
   * Read all records. What cannot be read is set aside: a network is gone then, and so is the network side of a container,
   * until it starts again; what the kernel has of them belongs to nobody.
   */
  static async load(store: Store, log: Pick<Logger, 'error'>): Promise<NetworkStore> {
    const loaded = new NetworkStore(store);
    const aside = (loaded.#aside = await AsideEntries.load(store));
    const [readNetworks, readSandboxes] = await Promise.all([
      loaded.#networkCollection.salvage(),
      loaded.#sandboxCollection.salvage(),
    ]);
    const damaged = [...readNetworks.damaged, ...readSandboxes.damaged];
    for (const { collection, key, reason } of damaged)
      log.error({ record: `${collection}/${key}`, reason }, 'a damaged record is set aside');
    if (damaged.length > 0) {
      loaded.#revision = await store.commit((batch) => {
        for (const entry of readNetworks.damaged) aside.set(batch, loaded.#networkCollection, entry);
        for (const entry of readSandboxes.damaged) aside.set(batch, loaded.#sandboxCollection, entry);
      });
    }
    // In the order in which they were made, as they are listed before a restart too.
    const networks = readNetworks.entries.map(([, record]) => record);
    networks.sort((a, b) => Number(BigInt(a.createdAtNs) - BigInt(b.createdAtNs)));
    const sandboxes = readSandboxes.entries.map(([, record]) => record);
    sandboxes.sort((a, b) => a.preparedAtMs - b.preparedAtMs);
    for (const record of networks) loaded.#networks.set(record.id, record);
    for (const record of sandboxes) loaded.#sandboxes.set(record.containerId, record);
    return loaded;
  }

  /** Revision of what reading shows. */
  get revision(): bigint {
    return this.#revision;
  }

  network(id: string): NetworkRecord | undefined {
    return this.#networks.get(id);
  }

  networks(): NetworkRecord[] {
    return [...this.#networks.values()];
  }

  sandbox(containerId: string): SandboxRecord | undefined {
    return this.#sandboxes.get(containerId);
  }

  sandboxes(): SandboxRecord[] {
    return [...this.#sandboxes.values()];
  }

  /** Write a change in one durable batch; readers and listeners see it when it is durable. */
  async commit(change: NetworkChange): Promise<bigint> {
    const revision = await this.#store.commit((batch) => {
      for (const network of change.putNetworks ?? []) batch.put(this.#networkCollection, network.id, network);
      for (const network of change.removeNetworks ?? []) batch.delete(this.#networkCollection, network.id);
      for (const sandbox of change.putSandboxes ?? []) batch.put(this.#sandboxCollection, sandbox.containerId, sandbox);
      for (const sandbox of change.removeSandboxes ?? []) batch.delete(this.#sandboxCollection, sandbox.containerId);
      for (const { containerId } of [...(change.putSandboxes ?? []), ...(change.removeSandboxes ?? [])])
        this.#aside?.drop(batch, containerId, this.#sandboxCollection.name);
      for (const event of change.events ?? []) batch.emit(event);
      change.receipt?.(batch);
    });
    this.#revision = revision;
    const changed = new Set<string>();
    const touch = (sandbox: SandboxRecord | undefined): void => {
      for (const endpoint of sandbox?.endpoints ?? []) changed.add(endpoint.networkId);
    };
    for (const network of change.putNetworks ?? []) {
      this.#networks.set(network.id, network);
      changed.add(network.id);
    }
    for (const sandbox of change.putSandboxes ?? []) {
      touch(this.#sandboxes.get(sandbox.containerId));
      touch(sandbox);
      this.#sandboxes.set(sandbox.containerId, sandbox);
    }
    for (const sandbox of change.removeSandboxes ?? []) {
      touch(this.#sandboxes.get(sandbox.containerId));
      this.#sandboxes.delete(sandbox.containerId);
    }
    for (const { id } of change.removeNetworks ?? []) {
      this.#networks.delete(id);
      changed.add(id);
    }
    const changes = [...changed].map((id) => [id, this.#networks.get(id)] as const);
    for (const listener of [...this.#listeners]) listener(revision, changes);
    return revision;
  }

  /** Called after every change, in the order of revisions. Returns what ends it. */
  onChange(listener: ChangeListener): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }
}
