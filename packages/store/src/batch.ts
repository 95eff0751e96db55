import { internal } from '@flotilla/errors';
import type { WriteOperation } from './backend.js';
import { asBuffer } from './codec.js';
import { StoredCollection } from './collection.js';
import type { Collection } from './collection.js';
import { checkKey } from './keys.js';
import type { EngineEvent } from './outbox.js';

/** Changes that become durable together or not at all. Valid only inside the function given to `Store.commit`. */
export interface Batch {
  /** The revision that the store will have after this batch. */
  readonly revision: bigint;
  put<T>(collection: Collection<T>, key: string, value: T): void;
  delete(collection: Collection<unknown>, key: string): void;
  /** Tell of the change: the event reaches NATS if and only if the batch is durable. */
  emit(event: EngineEvent): void;
  /** What to answer if the same request comes again within 10 minutes. */
  reply(requestId: string, payload: Uint8Array): void;
}

export class CollectingBatch implements Batch {
  readonly revision: bigint;
  readonly operations: WriteOperation[] = [];
  readonly events: EngineEvent[] = [];
  readonly replies = new Map<string, Uint8Array>();
  #sealed = false;

  constructor(revision: bigint) {
    this.revision = revision;
  }

  put<T>(collection: Collection<T>, key: string, value: T): void {
    const stored = this.#target(collection);
    this.operations.push({ type: 'put', key: stored.keyOf(key), value: asBuffer(stored.codec.encode(value)) });
  }

  delete(collection: Collection<unknown>, key: string): void {
    this.operations.push({ type: 'del', key: this.#target(collection).keyOf(key) });
  }

  emit(event: EngineEvent): void {
    this.#check();
    this.events.push(event);
  }

  reply(requestId: string, payload: Uint8Array): void {
    this.#check();
    checkKey(requestId);
    if (requestId !== '') this.replies.set(requestId, payload);
  }

  seal(): void {
    this.#sealed = true;
  }

  #target<T>(collection: Collection<T>): StoredCollection<T> {
    this.#check();
    if (!(collection instanceof StoredCollection)) throw internal('a batch takes collections of its store only');
    return collection as StoredCollection<T>;
  }

  #check(): void {
    if (this.#sealed) throw internal('a batch was used after its commit');
  }
}
