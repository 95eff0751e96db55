import type { NatsConnection } from 'nats';
import { messageOf } from '@flotilla/errors';
import type { Logger } from '@flotilla/log';
import { events } from '@flotilla/proto';
import type { Outbox, StoredEvent } from '@flotilla/store';
import { AcknowledgedPublisher } from './acknowledged-publisher.js';
import type { StreamMessage } from './acknowledged-publisher.js';
import { NatsLink } from './nats-link.js';
import type { NatsAddress } from './nats-link.js';
import { eventSubject } from './subjects.js';
import { pause } from './pause.js';

export interface OutboxPublisherOptions {
  /** Engine id: `<node>` in subjects, `node_id` of events. */
  engineId: string;
  /** Events on the way at once. */
  maxInFlight?: number;
}

/** What health and metrics tell. */
export interface PublisherState {
  connected: boolean;
  published: bigint;
  /** Durable events that NATS has not acknowledged yet. */
  waiting: bigint;
  /** Lost because the outbox was full. */
  dropped: bigint;
}

export interface OutboxPublisher extends AsyncDisposable {
  readonly state: PublisherState;
  /** NATS has moved. */
  setAddress(address: NatsAddress): void;
}

const retryMs = 250;
const ackTimeoutMs = 5000;

/**
 * Move an outbox to JetStream, in order, for as long as the process lives. Failures are logged and counted, never thrown.
 *
 * The window grows from one after each trouble: an event that is refused while the next is taken would come behind it in the stream.
 * Readers can cope with that, but should rarely have to.
 * Without NATS (`null`) events count as published at once and leave the outbox with time.
 */
export function startOutboxPublisher(
  outbox: Outbox,
  nats: NatsAddress | null,
  log: Logger,
  options: OutboxPublisherOptions,
): OutboxPublisher {
  if (nats === null) return discardOutbox(outbox);
  return new JetStreamPublisher(outbox, nats, log, options);
}

function discardOutbox(outbox: Outbox): OutboxPublisher {
  const discard = () => {
    outbox.markPublished(outbox.lastSequence);
  };
  discard();
  const stop = outbox.onAppend(discard);
  return {
    state: { connected: false, published: 0n, waiting: 0n, dropped: 0n },
    setAddress: () => undefined,
    [Symbol.asyncDispose]: () => {
      stop();
      return Promise.resolve();
    },
  };
}

const isOnThisMachine = ({ url }: NatsAddress): boolean =>
  /^(?:\w+:\/\/)?(?:localhost|127\.[\d.]+|\[::1\])(?::\d+)?$/.test(url);

class JetStreamPublisher implements OutboxPublisher {
  readonly #outbox: Outbox;
  readonly #log: Logger;
  readonly #engineId: string;
  readonly #maxInFlight: number;
  readonly #link: NatsLink;
  readonly #stop = new AbortController();
  readonly #unsubscribe: () => void;
  readonly #running: Promise<void>;
  #wake: () => void = () => undefined;
  #published = 0n;
  #reportedDropped = 0n;

  constructor(outbox: Outbox, nats: NatsAddress, log: Logger, options: OutboxPublisherOptions) {
    this.#outbox = outbox;
    this.#log = log;
    this.#engineId = options.engineId;
    this.#maxInFlight = options.maxInFlight ?? 256;
    this.#link = new NatsLink(nats, 'flotilla-outbox', log);
    // The boots of another machine are not ours to see.
    if (!isOnThisMachine(nats)) outbox.publishAllAgain();
    this.#unsubscribe = outbox.onAppend(() => {
      this.#wake();
    });
    this.#running = this.#run();
  }

  get state(): PublisherState {
    const waiting = this.#outbox.lastSequence - this.#outbox.publishedThrough;
    return {
      connected: this.#link.connection !== undefined,
      published: this.#published,
      waiting: waiting > 0n ? waiting : 0n,
      dropped: this.#outbox.dropped,
    };
  }

  setAddress(address: NatsAddress): void {
    this.#link.setAddress(address);
  }

  /** Gives what is on its way a moment to arrive; what does not is published after the next start. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.state.connected) await this.#outbox.flush(500).catch(() => undefined);
    this.#unsubscribe();
    this.#stop.abort();
    this.#wake();
    await this.#link[Symbol.asyncDispose]();
    await this.#running;
  }

  async #run(): Promise<void> {
    while (!this.#isStopped()) {
      const connection = await this.#link.connected(this.#stop.signal);
      if (connection === undefined) return;
      try {
        await this.#publishThrough(connection);
      } catch (error) {
        // Reading the outbox failed: the store is closed or its disk is broken.
        if (this.#isStopped()) return;
        this.#log.error({ error: messageOf(error) }, 'outbox cannot be read');
        await pause(retryMs * 4, this.#stop.signal);
      }
    }
  }

  async #publishThrough(connection: NatsConnection): Promise<void> {
    using stream = await AcknowledgedPublisher.open(connection, ackTimeoutMs);
    let window = 1;
    let isReported = false;
    while (!this.#isStopped() && !connection.isClosed()) {
      const entries = await this.#outbox.read(this.#outbox.publishedThrough, window);
      const last = entries.at(-1);
      if (last === undefined) {
        await this.#appended(connection);
        continue;
      }
      const failure = await this.#publish(stream, connection, entries);
      const acknowledged = failure === undefined ? last : entries[failure.at - 1];
      if (acknowledged !== undefined) {
        this.#published += BigInt(failure?.at ?? entries.length);
        this.#outbox.markPublished(acknowledged.sequence);
      }
      if (failure === undefined) {
        window = Math.min(window * 4, this.#maxInFlight);
        isReported = false;
        this.#reportDropped();
        continue;
      }
      window = 1;
      if (!isReported) {
        this.#log.warn({ error: failure.reason, ...this.#counts() }, 'events wait for nats');
        isReported = true;
      }
      await pause(retryMs, this.#stop.signal);
    }
  }

  /** @returns where it failed first, if it did. */
  async #publish(
    stream: AcknowledgedPublisher,
    connection: NatsConnection,
    entries: readonly StoredEvent[],
  ): Promise<{ at: number; reason: string } | undefined> {
    const messages = entries.map((entry) => this.#messageOf(connection, entry));
    const failures = await stream.publish(messages.filter((message) => message !== undefined));
    let sent = 0;
    for (const [at, message] of messages.entries()) {
      const failure = message === undefined ? undefined : failures[sent++];
      if (failure !== undefined) return { at, reason: messageOf(failure) };
    }
    return undefined;
  }

  /** undefined for one that NATS would refuse for ever, and everything behind it with it. */
  #messageOf(connection: NatsConnection, { event }: StoredEvent): StreamMessage | undefined {
    const payload = events.Event.encode({ ...event, nodeId: this.#engineId }).finish();
    const limit = connection.info?.max_payload;
    if (limit !== undefined && payload.length + 256 > limit) {
      this.#log.error({ eventId: event.id, bytes: payload.length }, 'event is too large for nats and was left out');
      return undefined;
    }
    return { subject: eventSubject(this.#engineId, event.type, event.action), id: event.id, payload };
  }

  async #appended(connection: NatsConnection): Promise<void> {
    const appended = new Promise<void>((resolve) => {
      this.#wake = resolve;
    });
    // An append between the read and this line would have woken nobody.
    if (this.#outbox.lastSequence > this.#outbox.publishedThrough && (await this.#hasMore())) return;
    await Promise.race([appended, connection.closed()]);
  }

  // Sequences have holes where a commit failed, so "last is larger" alone does not mean that something waits.
  async #hasMore(): Promise<boolean> {
    return (await this.#outbox.read(this.#outbox.publishedThrough, 1)).length > 0;
  }

  #isStopped(): boolean {
    return this.#stop.signal.aborted;
  }

  #reportDropped(): void {
    if (this.#outbox.dropped === this.#reportedDropped) return;
    this.#reportedDropped = this.#outbox.dropped;
    this.#log.error({ dropped: Number(this.#reportedDropped) }, 'events were dropped while nats was away');
  }

  #counts(): { waiting: number } {
    return { waiting: Number(this.state.waiting) };
  }
}
