import type { ConsumerConfig, ConsumerMessages, JsMsg, NatsConnection } from 'nats';
import { messageOf, unavailable } from '@flotilla/errors';
import type { Logger } from '@flotilla/log';
import { events } from '@flotilla/proto';
import { NatsLink } from './nats-link.js';
import type { NatsAddress } from './nats-link.js';
import { OrderingWindow } from './ordering-window.js';
import { SeenEvents } from './seen-events.js';
import { eventFilter, eventStream } from './subjects.js';
import { pause } from './pause.js';

export interface ReadEventsOptions {
  /** Event time in nanoseconds since the epoch; absent: only events from now on. */
  since?: bigint;
  /** Event time; the stream ends when it has passed and everything before it was delivered. Absent: follow for ever. */
  until?: bigint;
  /** Only events of this type; more filters are the caller's. */
  type?: string;
  /** Ends the stream without an error. */
  signal?: AbortSignal;
}

export interface EventReaderOptions {
  engineId: string;
  /** How long an event may wait for an earlier one of another service. Default 50 ms. */
  orderingWindowMs?: number;
}

// How far before `since` the stream is read: an event enters the stream after it happened, but clocks can be set.
const historySlackMs = 600_000;
const resumeSlackMs = 30_000;
const maxQueued = 1024;
const retryMs = 250;

/**
 * Reads the event stream: history and following, each event once, in the order of the hybrid clocks within a short window.
 * An open stream outlives NATS: while that is away nothing comes, afterwards it goes on from its position.
 */
export class EventReader implements AsyncDisposable {
  readonly #link: NatsLink | undefined;
  readonly #log: Logger;
  readonly #engineId: string;
  readonly #windowMs: number;

  constructor(nats: NatsAddress | null, log: Logger, options: EventReaderOptions) {
    this.#log = log;
    this.#engineId = options.engineId;
    this.#windowMs = options.orderingWindowMs ?? 50;
    this.#link = nats === null ? undefined : new NatsLink(nats, 'flotilla-events', log);
  }

  /** Whether NATS is connected at present. */
  get isConnected(): boolean {
    return this.#link?.connection !== undefined;
  }

  setAddress(address: NatsAddress): void {
    this.#link?.setAddress(address);
  }

  /**
   * Open a stream of events. When the promise resolves the position is fixed: no later event is missed.
   * The caller reads to the end, or stops by `signal` or by leaving its loop.
   *
   * @throws EngineError `unavailable` when NATS is away or has no stream.
   */
  async read(options: ReadEventsOptions = {}): Promise<AsyncIterable<events.Event>> {
    const link = this.#link;
    const connection = link?.connection;
    if (link === undefined || connection === undefined)
      throw unavailable('events are not available: NATS is not reachable');
    const openedAt = Date.now();
    const reading = new EventReading(link, this.#log, {
      ...options,
      since: options.since ?? BigInt(openedAt) * 1_000_000n,
      startAtMs:
        options.since === undefined ? openedAt - resumeSlackMs : Number(options.since / 1_000_000n) - historySlackMs,
      filter: eventFilter(this.#engineId, options.type),
      windowMs: this.#windowMs,
    });
    try {
      await reading.open(connection);
    } catch (error) {
      reading.stop();
      throw unavailable(`events are not available: ${messageOf(error)}`, { cause: error });
    }
    return reading.events();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#link?.[Symbol.asyncDispose]();
  }
}

interface ReadingOptions extends ReadEventsOptions {
  since: bigint;
  startAtMs: number;
  filter: string;
  windowMs: number;
}

interface Session {
  messages: ConsumerMessages;
  connection: NatsConnection;
  /** Nothing was in the stream when the consumer was made. */
  isEmpty: boolean;
}

/** One open stream of events. */
class EventReading {
  readonly #link: NatsLink;
  readonly #log: Logger;
  readonly #options: ReadingOptions;
  readonly #seen = new SeenEvents();
  readonly #window: OrderingWindow;
  readonly #ready: events.Event[] = [];
  readonly #stop = new AbortController();
  #startAtMs: number;
  #session: Session | undefined;
  #isDone = false;
  /** The present session has delivered everything that the stream held. */
  #isCaughtUp = false;
  #wakeReader: () => void = () => undefined;
  #wakePump: () => void = () => undefined;
  #timer: NodeJS.Timeout | undefined;

  constructor(link: NatsLink, log: Logger, options: ReadingOptions) {
    this.#link = link;
    this.#log = log;
    this.#options = options;
    this.#window = new OrderingWindow(options.windowMs);
    this.#startAtMs = Math.max(0, options.startAtMs);
    if (options.signal?.aborted === true) this.stop();
    else options.signal?.addEventListener('abort', this.stop, { once: true });
  }

  readonly stop = (): void => {
    this.#options.signal?.removeEventListener('abort', this.stop);
    this.#stop.abort();
    this.#isDone = true;
    this.#session?.messages.stop();
    clearTimeout(this.#timer);
    this.#wakeReader();
    this.#wakePump();
  };

  /** Make the first consumer. */
  async open(connection: NatsConnection): Promise<void> {
    this.#session = await this.#startSession(connection);
  }

  async *events(): AsyncGenerator<events.Event> {
    const pumping = this.#pump();
    try {
      for (;;) {
        const event = this.#ready.shift();
        if (event !== undefined) {
          if (this.#ready.length < maxQueued) this.#wakePump();
          yield event;
        } else if (this.#isDone) {
          return;
        } else {
          await new Promise<void>((resolve) => {
            this.#wakeReader = resolve;
          });
        }
      }
    } finally {
      this.stop();
      await pumping;
    }
  }

  async #startSession(connection: NatsConnection): Promise<Session> {
    const { AckPolicy, DeliverPolicy, nanos } = await import('nats');
    const jetstream = connection.jetstream({ timeout: 5000 });
    const manager = await jetstream.jetstreamManager(false);
    const config: Partial<ConsumerConfig> = {
      deliver_policy: DeliverPolicy.StartTime,
      opt_start_time: new Date(this.#startAtMs).toISOString(),
      ack_policy: AckPolicy.None,
      filter_subject: this.#options.filter,
      inactive_threshold: nanos(60_000),
      mem_storage: true,
      num_replicas: 1,
    };
    const info = await manager.consumers.add(eventStream, config);
    const consumer = await jetstream.consumers.get(eventStream, info.name);
    const messages = await consumer.consume({ max_messages: 256, expires: 5000, idle_heartbeat: 1000 });
    return { messages, connection, isEmpty: info.num_pending === 0 };
  }

  /** Sessions one after the other until the reading stops. */
  async #pump(): Promise<void> {
    let session = this.#session;
    while (!this.#isStopped()) {
      try {
        if (session === undefined) {
          const connection = await this.#link.connected(this.#stop.signal);
          if (connection === undefined) break;
          session = await this.#startSession(connection);
          this.#session = session;
        }
        await this.#readSession(session);
      } catch (error) {
        this.#log.debug({ error: messageOf(error) }, 'event stream interrupted');
      }
      this.#isCaughtUp = false;
      session?.messages.stop();
      session = undefined;
      if (!this.#isStopped()) await pause(retryMs, this.#stop.signal);
    }
    this.#isDone = true;
    this.#wakeReader();
  }

  async #readSession({ messages, connection, isEmpty }: Session): Promise<void> {
    const end = () => {
      messages.stop();
    };
    void connection.closed().then(end, end);
    endOnTrouble(messages, end).catch(end);
    let expected = 1;
    if (isEmpty) this.#caughtUp();
    for await (const message of messages) {
      const { deliverySequence, pending } = message.info;
      // A message was lost between server and client: begin anew from the position.
      if (deliverySequence !== expected) return;
      expected += 1;
      this.#take(message);
      if (pending === 0) this.#caughtUp();
      while (this.#ready.length >= maxQueued && !this.#isDone) {
        await new Promise<void>((resolve) => {
          this.#wakePump = resolve;
        });
      }
      if (this.#isDone) return;
    }
  }

  #take(message: JsMsg): void {
    const streamedAt = Math.floor(message.info.timestampNanos / 1_000_000);
    this.#startAtMs = Math.max(this.#startAtMs, streamedAt - resumeSlackMs);
    this.#deliver(this.#window.takeStreamedBefore(streamedAt));
    let event: events.Event;
    try {
      event = events.Event.decode(message.data);
    } catch (error) {
      this.#log.warn({ subject: message.subject, error: messageOf(error) }, 'event is malformed and was left out');
      return;
    }
    if (!this.#seen.add(event.id)) return;
    const { since, until } = this.#options;
    if (event.timeNs < since || (until !== undefined && event.timeNs > until)) return;
    this.#window.add(event, streamedAt, Date.now());
    this.#armTimer();
  }

  /** Everything that the stream holds at this moment was read. */
  #caughtUp(): void {
    this.#isCaughtUp = true;
    const { until } = this.#options;
    if (until === undefined) return;
    const leftMs = Number(until / 1_000_000n) + this.#options.windowMs - Date.now();
    if (leftMs <= 0) {
      this.#deliver(this.#window.takeAll());
      this.#finish();
    } else {
      this.#armTimer();
    }
  }

  #armTimer(): void {
    if (this.#timer !== undefined || this.#isDone) return;
    const { until, windowMs } = this.#options;
    const untilMs = until === undefined ? Infinity : Math.max(1, Number(until / 1_000_000n) + windowMs - Date.now());
    if (this.#window.size === 0 && untilMs === Infinity) return;
    const waitMs = this.#window.size > 0 ? windowMs / 2 : untilMs;
    this.#timer = setTimeout(
      () => {
        this.#timer = undefined;
        this.#deliver(this.#window.takeReceivedBefore(Date.now()));
        // What happened before `until` but is still on its way gets one more window.
        const isOver = until !== undefined && Date.now() >= Number(until / 1_000_000n) + windowMs;
        if (!isOver || this.#window.size > 0) this.#armTimer();
        // With NATS away something may still come: then it ends when everything was read afterwards.
        else if (this.#isCaughtUp) this.#finish();
      },
      Math.min(waitMs, 2 ** 31 - 1),
    );
  }

  #finish(): void {
    this.#isDone = true;
    this.#stop.abort();
    this.#session?.messages.stop();
    this.#wakeReader();
    this.#wakePump();
  }

  #deliver(ordered: events.Event[]): void {
    if (ordered.length === 0) return;
    this.#ready.push(...ordered);
    this.#wakeReader();
  }

  #isStopped(): boolean {
    return this.#stop.signal.aborted;
  }
}

/** The client only tells of lost heartbeats and consumers; it would wait on. */
async function endOnTrouble(messages: ConsumerMessages, end: () => void): Promise<void> {
  const { ConsumerEvents } = await import('nats');
  for await (const status of await messages.status()) {
    const isTrouble =
      status.type === ConsumerEvents.HeartbeatsMissed ||
      status.type === ConsumerEvents.ConsumerDeleted ||
      status.type === ConsumerEvents.ConsumerNotFound ||
      status.type === ConsumerEvents.StreamNotFound;
    if (isTrouble) end();
  }
}
