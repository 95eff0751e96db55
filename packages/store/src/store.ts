import { internal, messageOf, unavailable } from '@flotilla/errors';
import type { events } from '@flotilla/proto';
import type { Backend, WriteOperation } from './backend.js';
import { CollectingBatch } from './batch.js';
import type { Batch } from './batch.js';
import type { Codec } from './codec.js';
import { StoredCollection } from './collection.js';
import type { Collection } from './collection.js';
import { HybridClock } from './hybrid-clock.js';
import { outboxPrefix, prefixRange, stateKey } from './keys.js';
import { LevelBackend } from './level-backend.js';
import { MemoryBackend, MemoryDisk } from './memory-backend.js';
import { Outbox } from './outbox.js';
import type { EngineEvent, OutboxOptions, StoredEvent } from './outbox.js';
import { ReplyCache } from './reply-cache.js';
import type { ReplyCacheOptions } from './reply-cache.js';
import { migrateSchema } from './schema.js';
import { readBootId } from './store-owner.js';
import type { Migration } from './schema.js';

export interface StoreOptions {
  /** Prefix of event ids, and named in errors. */
  service: string;
  /** Of the service's own records, from 1. */
  schemaVersion: number;
  migrations?: readonly Migration[];
  /** The process's clock, shared with rpc; a new one when absent. */
  clock?: HybridClock;
  outbox?: OutboxOptions;
  replies?: ReplyCacheOptions;
  /** Wall clock in milliseconds, for expiry. */
  now?: () => number;
  /** Of the running kernel; for tests. */
  bootId?: string;
}

export interface OpenStoreOptions extends StoreOptions {
  /** How long to wait while the process before still has the directory open. Default 10 s. */
  lockTimeoutMs?: number;
}

interface PendingCommit {
  batch: CollectingBatch;
  events: StoredEvent[];
  bytes: number;
  resolve: (revision: bigint) => void;
  reject: (error: unknown) => void;
}

interface StoreState {
  revision: bigint;
  sequence: bigint;
  timeNs: bigint;
  /** Events up to here need not be published again, unless the machine has been booted since. */
  settled: bigint;
  bootId: string;
}

type CommitListener = (revision: bigint, events: StoredEvent[]) => void;

// Bounds of one LevelDB write made of several commits: enough to amortise the sync, small beside the write buffer.
const groupCommits = 256;
const groupBytes = 1 << 20;

/**
 * A service's records: typed collections, changed in atomic durable batches that carry their events and replies.
 *
 * One process opens a directory at a time. Commits that arrive while one is being written go to the disk together, in their order, with one sync;
 * each is still all or nothing, and revisions come out in order.
 */
export class Store implements AsyncDisposable {
  readonly clock: HybridClock;
  readonly outbox: Outbox;
  readonly replies: ReplyCache;
  readonly #service: string;
  readonly #backend: Backend;
  readonly #listeners = new Set<CommitListener>();
  readonly #collections = new Set<string>();
  #queue: PendingCommit[] = [];
  #writing: Promise<void> | undefined;
  #closing: Promise<void> | undefined;
  #writeFailed = false;
  #durable: StoreState;
  #assigned: StoreState;

  private constructor(
    backend: Backend,
    options: StoreOptions,
    parts: { state: StoreState; outbox: Outbox; replies: ReplyCache },
  ) {
    this.#service = options.service;
    this.#backend = backend;
    this.clock = options.clock ?? new HybridClock();
    // Events never go back in time across a restart, even if the wall clock did.
    this.clock.observe(parts.state.timeNs);
    this.outbox = parts.outbox;
    this.replies = parts.replies;
    this.#durable = parts.state;
    this.#assigned = parts.state;
  }

  /**
   * Open the LevelDB directory `dir`, made if needed; waits for the process that had it before.
   *
   * @throws EngineError `unavailable` when another process keeps it; `dataLoss` when it is damaged, another service's, or of a newer version.
   */
  static async open(dir: string, options: OpenStoreOptions): Promise<Store> {
    const { service, lockTimeoutMs = 10_000 } = options;
    const backend = await LevelBackend.open({ dir, service, lockTimeoutMs });
    try {
      return await Store.#load(backend, dir, options);
    } catch (error) {
      await backend.close();
      throw error;
    }
  }

  /** The memory twin, empty. */
  static memory(options: StoreOptions): Store {
    const backend = new MemoryBackend(new MemoryDisk());
    const now = options.now ?? Date.now;
    return new Store(backend, options, {
      state: firstState,
      outbox: new Outbox(backend, { oldest: 1n, last: 0n, settled: 0n }, options.outbox, now),
      replies: ReplyCache.empty(backend, options.replies, now),
    });
  }

  /** The memory twin over what an earlier one left on `disk`: plays a restart. */
  static openMemory(disk: MemoryDisk, options: StoreOptions): Promise<Store> {
    return Store.#load(new MemoryBackend(disk), 'memory', options);
  }

  static async #load(backend: Backend, where: string, options: StoreOptions): Promise<Store> {
    const { service, schemaVersion, migrations = [], now = Date.now } = options;
    await migrateSchema(backend, where, service, schemaVersion, migrations);
    const stored = decodeState(await backend.get(stateKey));
    const bootId = options.bootId ?? (await readBootId());
    const state = stored.bootId === bootId && bootId !== '' ? stored : { ...stored, settled: 0n, bootId };
    const { sequence, settled } = state;
    const bounds = { oldest: sequence + 1n, last: sequence, settled };
    for await (const [key] of backend.entries({ ...prefixRange(outboxPrefix), limit: 1 })) {
      bounds.oldest = BigInt(`0x${key.toString('latin1', outboxPrefix.length)}`);
    }
    return new Store(backend, options, {
      state,
      outbox: new Outbox(backend, bounds, options.outbox, now),
      replies: await ReplyCache.load(backend, options.replies, now),
    });
  }

  /** Revision of the newest durable batch; it is persisted and only ever grows (a failed commit leaves a hole). */
  get revision(): bigint {
    return this.#durable.revision;
  }

  /** A key space of its own for values of one type. `name`: lower-case letters, digits and dashes, asked for once. */
  collection<T>(name: string, codec: Codec<T>): Collection<T> {
    if (!/^[a-z0-9-]+$/.test(name)) throw internal(`bad collection name ${name}`);
    if (this.#collections.has(name)) throw internal(`the collection ${name} is open already`);
    this.#collections.add(name);
    return new StoredCollection(this.#backend, name, codec);
  }

  /**
   * Write one batch. `build` runs at once and synchronously; if it throws, nothing is written.
   * Resolves with the new revision when the batch is on the disk and the commit listeners have run.
   *
   * @throws EngineError `internal` when the disk refuses (full, broken): nothing of the batch is there then; a later commit may succeed.
   */
  async commit(build: (batch: Batch) => void): Promise<bigint> {
    if (this.#closing !== undefined) throw unavailable(`the ${this.#service} store is closed`);
    const batch = new CollectingBatch(this.#assigned.revision + 1n);
    try {
      build(batch);
    } finally {
      batch.seal();
    }
    const stored = batch.events.map((event, at) => this.#stamp(event, this.#assigned.sequence + BigInt(at) + 1n));
    this.#assigned = {
      ...this.#assigned,
      revision: batch.revision,
      sequence: this.#assigned.sequence + BigInt(stored.length),
      timeNs: stored.at(-1)?.event.timeNs ?? this.#assigned.timeNs,
    };
    let bytes = 0;
    for (const operation of batch.operations) {
      bytes += operation.key.length + (operation.type === 'put' ? operation.value.length : 0);
    }
    return new Promise((resolve, reject) => {
      this.#queue.push({ batch, events: stored, bytes, resolve, reject });
      this.#writing ??= this.#writeQueue();
    });
  }

  /** Called after each durable batch, in the order of revisions, before its `commit` resolves. It must not throw. */
  onCommit(listener: CommitListener): () => void {
    this.#listeners.add(listener);
    return () => {
      this.#listeners.delete(listener);
    };
  }

  /** Finish the commits under way, then let go of the directory. Later commits are refused. */
  close(): Promise<void> {
    this.#closing ??= (async () => {
      await this.#writing;
      const settled = this.outbox.settledThrough;
      if (settled > this.#durable.settled && !this.#writeFailed) {
        const value = encodeState({ ...this.#durable, settled });
        // Without it the next start publishes more again.
        await this.#backend.write([{ type: 'put', key: stateKey, value }]).catch(() => undefined);
      }
      await this.#backend.close();
    })();
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #stamp(event: EngineEvent, sequence: bigint): StoredEvent {
    const { type, action, actorId, attributes, scope = 'local', requestId = '' } = event;
    const id = `${this.#service}-${sequence}`;
    const stamped: events.Event = {
      ...{ id, type, action, actorId, attributes, scope, requestId },
      timeNs: this.clock.now(),
      nodeId: '',
    };
    return { sequence, event: stamped };
  }

  async #writeQueue(): Promise<void> {
    // Commits made in this turn of the event loop join the first write.
    await Promise.resolve();
    while (this.#queue.length > 0) {
      const group = this.#takeGroup();
      const last = group.at(-1);
      if (last === undefined) break;
      const state: StoreState = {
        revision: last.batch.revision,
        sequence:
          group.findLast((commit) => commit.events.length > 0)?.events.at(-1)?.sequence ?? this.#durable.sequence,
        timeNs:
          group.findLast((commit) => commit.events.length > 0)?.events.at(-1)?.event.timeNs ?? this.#durable.timeNs,
        settled: this.outbox.settledThrough,
        bootId: this.#durable.bootId,
      };
      try {
        await this.#write(this.#operationsOf(group, state), state.revision);
      } catch (error) {
        this.#writeFailed = true;
        for (const commit of group) commit.reject(error);
        continue;
      }
      for (const commit of group) {
        this.#durable = { ...state, revision: commit.batch.revision };
        this.#announce(commit);
      }
    }
    this.#writing = undefined;
  }

  /** Write, and once more after a failure: room may have been kept for just that. */
  async #write(operations: WriteOperation[], revision: bigint): Promise<void> {
    if (this.#writeFailed) await this.#recover();
    try {
      await this.#backend.write(operations);
      return;
    } catch (failure) {
      this.#writeFailed = true;
      const isThere = await this.#recover(revision).catch(() => {
        throw failure;
      });
      if (isThere) return;
    }
    await this.#backend.write(operations);
  }

  /** @returns whether the batch of `pending`, whose write has just failed, is on the disk all the same. */
  async #recover(pending?: bigint): Promise<boolean> {
    await this.#backend.recover();
    const state = decodeState(await this.#backend.get(stateKey));
    const isThere = pending !== undefined && state.revision === pending;
    if (!isThere && state.revision !== this.#durable.revision) {
      // A failed sync can leave the batch on the disk although its callers were told otherwise; what is in memory is then wrong.
      const error = internal(
        `the ${this.#service} store holds a batch whose write had failed: the service must start anew`,
      );
      queueMicrotask(() => {
        throw error;
      });
      throw error;
    }
    this.#writeFailed = false;
    return isThere;
  }

  #takeGroup(): PendingCommit[] {
    let bytes = 0;
    let count = 0;
    for (const commit of this.#queue) {
      bytes += commit.bytes;
      if (count > 0 && (count >= groupCommits || bytes > groupBytes)) break;
      count += 1;
    }
    return this.#queue.splice(0, count);
  }

  #operationsOf(group: readonly PendingCommit[], state: StoreState): WriteOperation[] {
    const operations: WriteOperation[] = [];
    for (const { batch, events: stored } of group) {
      operations.push(...batch.operations);
      operations.push(...this.outbox.append(stored));
      operations.push(...this.replies.append(batch.replies));
    }
    operations.push({ type: 'put', key: stateKey, value: encodeState(state) });
    return operations;
  }

  #announce(commit: PendingCommit): void {
    this.outbox.appended(commit.events);
    this.replies.appended(commit.batch.replies);
    for (const listener of [...this.#listeners]) {
      try {
        listener(commit.batch.revision, commit.events);
      } catch (error) {
        // The batch is durable: its caller must hear so. The fault is a bug, reported as an uncaught one is.
        process.emitWarning(`a commit listener of the ${this.#service} store threw: ${messageOf(error)}`);
      }
    }
    commit.resolve(commit.batch.revision);
  }
}

const firstState: StoreState = { revision: 0n, sequence: 0n, timeNs: 0n, settled: 0n, bootId: '' };
/** Four numbers of eight bytes, then the id; a store of before has the first three only. */
const stateBytes = 32;

function encodeState(state: StoreState): Buffer {
  const value = Buffer.alloc(stateBytes + state.bootId.length);
  value.writeBigUInt64BE(state.revision, 0);
  value.writeBigUInt64BE(state.sequence, 8);
  value.writeBigUInt64BE(state.timeNs, 16);
  value.writeBigUInt64BE(state.settled, 24);
  value.write(state.bootId, stateBytes, 'latin1');
  return value;
}

function decodeState(value: Buffer | undefined): StoreState {
  if (value === undefined) return firstState;
  const hasSettled = value.length >= stateBytes;
  return {
    revision: value.readBigUInt64BE(0),
    sequence: value.readBigUInt64BE(8),
    timeNs: value.readBigUInt64BE(16),
    settled: hasSettled ? value.readBigUInt64BE(24) : 0n,
    bootId: hasSettled ? value.toString('latin1', stateBytes) : '',
  };
}
