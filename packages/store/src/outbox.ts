import { events } from '@flotilla/proto';
import { deadlineExceeded } from '@flotilla/errors';
import type { Backend, WriteOperation } from './backend.js';
import { asBuffer } from './codec.js';
import { outboxKey, outboxPrefix, prefixRange } from './keys.js';

/** What a domain method emits; the store adds id and time. */
export interface EngineEvent {
  /** container, image, volume, network, daemon, plugin, builder. */
  type: string;
  /** As Docker names it, e.g. `start`, `exec_create: sh`. */
  action: string;
  actorId: string;
  attributes: Record<string, string>;
  scope?: 'local' | 'swarm';
  requestId?: string;
}

/** An event as it was committed. */
export interface StoredEvent {
  /** Strictly increasing per outbox; a failed commit leaves a hole. */
  readonly sequence: bigint;
  /** `event.id` is `<service>-<sequence>`; `nodeId` is empty until it is published. */
  readonly event: events.Event;
}

export interface OutboxOptions {
  /** How long an entry stays after it was published, to be published again if NATS lost it. */
  keepPublishedMs?: number;
  /** Most entries kept. Beyond, the oldest go, published or not: an engine whose NATS is away for days must not fill the disk. */
  maxEntries?: number;
}

// Deleted per commit, so that no single commit pays for a long backlog.
const trimStep = 64n;
/** Unpublished entries that are also held in memory: with NATS there, what is published next never has to be read. */
const recentEntries = 512;

/** NATS has written what it acknowledged so long ago, though not synced it: only a crash of the machine can still take it. */
const settleMs = 10_000;

/** What a start finds. */
export interface OutboxBounds {
  /** Sequence of the oldest entry that may be there. */
  oldest: bigint;
  /** Of the newest there ever was. */
  last: bigint;
  /** Published up to here, and not lost since by a crash of the machine. */
  settled: bigint;
}

/**
 * Events that were committed together with the change they tell of, in order, until a publisher has moved them to NATS.
 *
 * After a start what was published in the last ten seconds counts as unpublished again, and after a boot everything that is still here: NATS syncs its
 * disk lazily, and readers drop what they have seen.
 */
export class Outbox {
  readonly #backend: Backend;
  readonly #keepPublishedMs: number;
  readonly #maxEntries: bigint;
  readonly #now: () => number;
  readonly #appendListeners = new Set<() => void>();
  readonly #publishWaiters = new Set<() => void>();
  /** When entries up to `through` were published, oldest first. */
  readonly #published: { through: bigint; at: number }[] = [];
  /** Every durable entry from `#recentFrom` on, in order. */
  #recent: StoredEvent[] = [];
  #recentFrom: bigint;
  #oldest: bigint;
  #last: bigint;
  #publishedThrough: bigint;
  #settled: bigint;
  #settles = true;
  #dropped = 0n;

  constructor(backend: Backend, bounds: OutboxBounds, options: OutboxOptions = {}, now: () => number = Date.now) {
    this.#backend = backend;
    this.#keepPublishedMs = options.keepPublishedMs ?? 600_000;
    this.#maxEntries = BigInt(options.maxEntries ?? 100_000);
    this.#now = now;
    this.#oldest = bounds.oldest;
    this.#last = bounds.last;
    this.#settled = bounds.settled;
    this.#publishedThrough = bounds.settled >= bounds.oldest ? bounds.settled : bounds.oldest - 1n;
    this.#recentFrom = bounds.last + 1n;
  }

  /** Sequence of the newest durable entry; 0 when there never was one. */
  get lastSequence(): bigint {
    return this.#last;
  }

  /** Everything up to here was published since the store was opened. */
  get publishedThrough(): bigint {
    return this.#publishedThrough;
  }

  /** Published up to here, long enough ago that NATS loses it only with the machine. */
  get settledThrough(): bigint {
    if (!this.#settles) return 0n;
    const before = this.#now() - settleMs;
    const mark = this.#published.findLast(({ at }) => at <= before);
    if (mark !== undefined && mark.through > this.#settled) this.#settled = mark.through;
    return this.#settled;
  }

  /** For a NATS of which nobody knows what it keeps: whatever is here is published after each start. Before anything is published. */
  publishAllAgain(): void {
    this.#settles = false;
    this.#publishedThrough = this.#oldest - 1n;
  }

  /** Entries that went unpublished because there were too many. */
  get dropped(): bigint {
    return this.#dropped;
  }

  /** Up to `limit` entries behind `after`, in order. */
  async read(after: bigint, limit: number): Promise<StoredEvent[]> {
    if (after + 1n >= this.#recentFrom) {
      const from = this.#recent.findIndex(({ sequence }) => sequence > after);
      return from < 0 ? [] : this.#recent.slice(from, from + limit);
    }
    const entries: StoredEvent[] = [];
    const range = { ...prefixRange(outboxPrefix), gte: outboxKey(after + 1n), limit };
    for await (const [key, value] of this.#backend.entries(range)) {
      const sequence = BigInt(`0x${key.toString('latin1', outboxPrefix.length)}`);
      entries.push({ sequence, event: events.Event.decode(value) });
    }
    return entries;
  }

  /** Called by the publisher when NATS has acknowledged everything up to `through`. */
  markPublished(through: bigint): void {
    if (through <= this.#publishedThrough) return;
    this.#publishedThrough = through;
    this.#forget(through);
    const at = this.#now();
    const newest = this.#published.at(-1);
    // One mark per second is fine enough for a time of ten minutes.
    if (newest !== undefined && at - newest.at < 1000) newest.through = through;
    else this.#published.push({ through, at });
    for (const wake of [...this.#publishWaiters]) wake();
  }

  /** Called after every commit that emitted something. */
  onAppend(listener: () => void): () => void {
    this.#appendListeners.add(listener);
    return () => {
      this.#appendListeners.delete(listener);
    };
  }

  /**
   * Resolves when all entries that are durable now have been published (at once if nothing waits).
   *
   * @throws EngineError `deadlineExceeded` after `timeoutMs`, as when NATS is away.
   */
  async flush(timeoutMs = 5000): Promise<void> {
    const target = this.#last;
    if (this.#publishedThrough >= target) return;
    await new Promise<void>((resolve, reject) => {
      const finish = (settle: () => void) => {
        clearTimeout(timer);
        this.#publishWaiters.delete(check);
        settle();
      };
      const check = () => {
        if (this.#publishedThrough >= target) finish(resolve);
      };
      const timer = setTimeout(() => {
        finish(() => {
          reject(deadlineExceeded(`events were not published within ${timeoutMs} ms`));
        });
      }, timeoutMs);
      this.#publishWaiters.add(check);
    });
  }

  /** Operations that put `entries` into the batch of their change, and take out what is too old. */
  append(entries: readonly StoredEvent[]): WriteOperation[] {
    const operations: WriteOperation[] = entries.map(({ sequence, event }) => ({
      type: 'put',
      key: outboxKey(sequence),
      value: asBuffer(events.Event.encode(event).finish()),
    }));
    for (let { start, end } = this.#expired(); start < end; start += 1n) {
      operations.push({ type: 'del', key: outboxKey(start) });
    }
    return operations;
  }

  /** The batch with `entries` is durable. */
  appended(entries: readonly StoredEvent[]): void {
    const newest = entries.at(-1);
    if (newest === undefined) return;
    this.#last = newest.sequence;
    this.#recent.push(...entries);
    const tooMany = this.#recent.length - recentEntries;
    if (tooMany > 0) this.#forget(this.#recent[tooMany - 1]?.sequence ?? 0n);
    for (const wake of [...this.#appendListeners]) wake();
  }

  /** Entries up to `through` are no longer held in memory. */
  #forget(through: bigint): void {
    if (through < this.#recentFrom) return;
    this.#recentFrom = through + 1n;
    this.#recent = this.#recent.filter(({ sequence }) => sequence > through);
  }

  // Deleting is idempotent, so the bound may move on before the batch is durable: at worst an old entry is kept until the next start.
  #expired(): { start: bigint; end: bigint } {
    const start = this.#oldest;
    let end = start;
    const before = this.#now() - this.#keepPublishedMs;
    const mark = this.#published[0];
    if (mark !== undefined && mark.at <= before) end = mark.through + 1n;
    const bound = this.#last + 1n - this.#maxEntries;
    if (bound > end) {
      end = bound;
      const unpublished = bound - 1n - this.#publishedThrough;
      if (unpublished > 0n) {
        this.#dropped += unpublished;
        this.#publishedThrough = bound - 1n;
      }
    }
    if (end - start > trimStep) end = start + trimStep;
    if (mark !== undefined && mark.through < end) this.#published.shift();
    this.#oldest = end;
    this.#forget(end - 1n);
    return { start, end };
  }
}
