import type { events } from '@flotilla/proto';

interface HeldEvent {
  event: events.Event;
  /** When the stream took it, in milliseconds of NATS's clock. */
  streamedAt: number;
  /** When this process received it. */
  receivedAt: number;
}

/**
 * Puts events of several services into the order of their hybrid clocks: each is held for a short window in which an earlier one may still arrive.
 * In the stream they stand in the order in which the services' publishers got through, which says little.
 */
export class OrderingWindow {
  readonly #windowMs: number;
  /** Sorted by event time. */
  readonly #held: HeldEvent[] = [];

  constructor(windowMs: number) {
    this.#windowMs = windowMs;
  }

  get size(): number {
    return this.#held.length;
  }

  add(event: events.Event, streamedAt: number, receivedAt: number): void {
    let at = this.#held.length;
    while (at > 0 && (this.#held[at - 1]?.event.timeNs ?? 0n) > event.timeNs) at -= 1;
    this.#held.splice(at, 0, { event, streamedAt, receivedAt });
  }

  /** Events whose window ended before a message that the stream took at `streamedAt`: for history, which arrives faster than it happened. */
  takeStreamedBefore(streamedAt: number): events.Event[] {
    return this.#takeWhile((held) => held.streamedAt + this.#windowMs <= streamedAt);
  }

  /** Events whose window has ended at `now`, by this process's clock. */
  takeReceivedBefore(now: number): events.Event[] {
    return this.#takeWhile((held) => held.receivedAt + this.#windowMs <= now);
  }

  takeAll(): events.Event[] {
    return this.#takeWhile(() => true);
  }

  #takeWhile(isOver: (held: HeldEvent) => boolean): events.Event[] {
    const at = this.#held.findIndex((held) => !isOver(held));
    return this.#held.splice(0, at === -1 ? this.#held.length : at).map(({ event }) => event);
  }
}
