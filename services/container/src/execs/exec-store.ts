import { type EngineEvent, jsonCodec, type Collection, type Store } from '@flotilla/store';
import type { container } from '@flotilla/proto';

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
  readonly #store: Store;
  readonly #entries: Collection<ExecRecord>;
  readonly #records = new Map<string, ExecRecord>();

  private constructor(store: Store) {
    this.#store = store;
    this.#entries = store.collection('execs', jsonCodec<ExecRecord>());
  }

  static async load(store: Store): Promise<ExecStore> {
    const self = new ExecStore(store);
    for (const [id, record] of await self.#entries.all()) self.#records.set(id, record);
    return self;
  }

  get(id: string): ExecRecord | undefined {
    return this.#records.get(id);
  }

  all(): ExecRecord[] {
    return [...this.#records.values()];
  }

  /** Written together with its event; visible when it is durable. */
  async put(record: ExecRecord, event?: EngineEvent): Promise<void> {
    await this.#store.commit((batch) => {
      batch.put(this.#entries, record.id, record);
      if (event !== undefined) batch.emit(event);
    });
    this.#records.set(record.id, record);
  }

  async remove(ids: readonly string[]): Promise<void> {
    if (ids.length === 0) return;
    await this.#store.commit((batch) => {
      for (const id of ids) batch.delete(this.#entries, id);
    });
    for (const id of ids) this.#records.delete(id);
  }
}
