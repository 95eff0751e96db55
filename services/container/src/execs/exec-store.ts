import { type EngineEvent, jsonCodec, type Collection, type Store } from '@flotilla/store';
import type { container } from '@flotilla/proto';
import type { ContainerStore } from '../store/container-store.js';

/** A further process of a container, from its creation until some time after its end. JSON. */
export interface ExecRecord {
  readonly id: string;
  readonly containerId: string;
  readonly config: container.ExecConfig;
  readonly state: 'created' | 'running' | 'ended';
  /** Of an ended one. */
  readonly exitCode: number;
  /** Milliseconds since the epoch of the last change of state. */
  readonly changedAtMs: number;
}

/** Every exec of the engine: durable, and held in memory. */
export class ExecStore {
  readonly #containers: ContainerStore;
  readonly #entries: Collection<ExecRecord>;
  readonly #records = new Map<string, ExecRecord>();

  private constructor(store: Store, containers: ContainerStore) {
    this.#containers = containers;
    this.#entries = store.collection('execs', jsonCodec<ExecRecord>());
  }

  /** @param containers shows the execs of each container; in the same store */
  static async load(store: Store, containers: ContainerStore): Promise<ExecStore> {
    const self = new ExecStore(store, containers);
    const { entries, damaged } = await self.#entries.salvage();
    for (const [id, record] of entries) self.#records.set(id, record);
    await containers.setAside(self.#entries, damaged);
    containers.restoreExecs(self.all().filter(isOpen));
    return self;
  }

  get(id: string): ExecRecord | undefined {
    return this.#records.get(id);
  }

  all(): ExecRecord[] {
    return [...this.#records.values()];
  }

  /** Written together with its event; visible when it is durable. */
  async put(record: ExecRecord, event?: EngineEvent): Promise<bigint> {
    const before = this.#records.get(record.id);
    const revision = await this.#containers.commit((batch) => {
      batch.also((own) => own.put(this.#entries, record.id, record));
      if (before === undefined || isOpen(before) !== isOpen(record)) {
        batch.noteExec(record.containerId, record.id, isOpen(record));
      }
      if (event !== undefined) batch.emit(event);
    });
    this.#records.set(record.id, record);
    return revision;
  }

  async remove(ids: readonly string[]): Promise<void> {
    if (ids.length === 0) return;
    await this.#containers.commit((batch) => {
      for (const id of ids) {
        const record = this.#records.get(id);
        batch.also((own) => own.delete(this.#entries, id));
        if (record !== undefined && isOpen(record)) batch.noteExec(record.containerId, id, false);
      }
    });
    for (const id of ids) this.#records.delete(id);
  }
}

/** Whether inspect of the container tells of it, as dockerd's does. */
const isOpen = ({ state }: ExecRecord): boolean => state !== 'ended';
