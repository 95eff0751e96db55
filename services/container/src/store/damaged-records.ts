import { container } from '@flotilla/proto';
import { type Batch, type Collection, type DamagedEntry, jsonCodec, type Store } from '@flotilla/store';
import {
  completeContainer,
  type ContainerInternals,
  neverStarted,
  type ShownContainer,
  toStatus,
} from './container-record.js';

/** An entry of the store that could not be decoded, kept as it was found. JSON. */
export interface AsideRecord extends Omit<DamagedEntry, 'bytes'> {
  bytesBase64: string;
  setAsideAtMs: number;
}

/** Where damaged entries are kept: under `<collection>/<key>`, until the container that they are of is removed. */
export class DamagedRecords {
  readonly #entries: Collection<AsideRecord>;
  readonly #keys = new Set<string>();

  constructor(store: Store) {
    this.#entries = store.collection('damaged', jsonCodec<AsideRecord>());
  }

  async load(): Promise<void> {
    for (const [key] of (await this.#entries.salvage()).entries) this.#keys.add(key);
  }

  /** In the batch that takes the entry out of its collection. */
  setAside(batch: Batch, from: Collection<unknown>, { bytes, ...entry }: DamagedEntry): void {
    const key = `${entry.collection}/${entry.key}`;
    batch.put(this.#entries, key, {
      ...entry,
      bytesBase64: Buffer.from(bytes).toString('base64'),
      setAsideAtMs: Date.now(),
    });
    batch.delete(from, entry.key);
    this.#keys.add(key);
  }

  /** The container is removed, and with it what is left of its record. */
  drop(batch: Batch, id: string): void {
    for (const key of this.#keys) {
      if (!key.endsWith(`/${id}`)) continue;
      batch.delete(this.#entries, key);
      this.#keys.delete(key);
    }
  }
}

/** What stands for a container of whose record a part, at least, is lost: dead, with what the other part tells. */
export function standIn(
  id: string,
  shown: container.Container | undefined,
  internals: ContainerInternals | undefined,
  reason: string,
): { container: ShownContainer; internals: ContainerInternals } {
  const known = completeContainer(shown ?? container.Container.fromPartial({ id, name: id.slice(0, 12) }));
  const state = { ...known.state, status: toStatus('dead'), pid: 0, error: reason, health: undefined };
  return {
    container: { ...known, state },
    internals: { ...(internals ?? noInternals), task: null, backOff: null, quarantine: { reason, isRecordLost: true } },
  };
}

const noInternals: ContainerInternals = {
  mounts: [],
  network: { kind: 'none' },
  ...neverStarted,
};
