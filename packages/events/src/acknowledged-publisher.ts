import type { Msg, MsgHdrs, NatsConnection, Subscription } from 'nats';
import { messageOf, unavailable } from '@flotilla/errors';

/** What goes into a stream. */
export interface StreamMessage {
  readonly subject: string;
  /** By which the server recognises it when it comes again. */
  readonly id: string;
  readonly payload: Uint8Array;
}

/** What JetStream answers: `error` when it did not take the message. */
interface Acknowledgement {
  readonly error?: { readonly description?: string };
}

const noResponders = 503;

/**
 * Publishes messages into JetStream streams, several at a time, over one connection.
 *
 * The client's own `publish` makes a request of each message, with a timer and an error for its stack: ten times what the message costs.
 */
export class AcknowledgedPublisher implements Disposable {
  readonly #connection: NatsConnection;
  readonly #newHeaders: () => MsgHdrs;
  readonly #inbox: string;
  readonly #subscription: Subscription;
  readonly #timeoutMs: number;
  /** By the number in the last token of the subject that the answer comes to. */
  readonly #awaited = new Map<string, (failure: Error | undefined) => void>();
  #sent = 0;

  private constructor(connection: NatsConnection, inbox: string, newHeaders: () => MsgHdrs, timeoutMs: number) {
    this.#connection = connection;
    this.#newHeaders = newHeaders;
    this.#inbox = inbox;
    this.#timeoutMs = timeoutMs;
    this.#subscription = connection.subscribe(`${inbox}.*`, {
      callback: (error, message) => this.#answered(error, message),
    });
    void connection.closed().then(() => {
      for (const token of [...this.#awaited.keys()])
        this.#settle(token, unavailable('the connection to nats has ended'));
    });
  }

  static async open(connection: NatsConnection, timeoutMs: number): Promise<AcknowledgedPublisher> {
    const { createInbox, headers } = await import('nats');
    return new AcknowledgedPublisher(connection, createInbox(), headers, timeoutMs);
  }

  /** @returns for each message why it was not acknowledged within the time; undefined for those that were. Never rejects. */
  async publish(messages: readonly StreamMessage[]): Promise<(Error | undefined)[]> {
    const failures: (Error | undefined)[] = messages.map(() => undefined);
    if (messages.length === 0) return failures;
    const first = this.#sent + 1;
    this.#sent += messages.length;
    await new Promise<void>((resolve) => {
      let left = messages.length;
      messages.forEach((_, at) => {
        this.#awaited.set(String(first + at), (failure) => {
          failures[at] = failure;
          left -= 1;
          if (left > 0) return;
          clearTimeout(timer);
          resolve();
        });
      });
      const fail = (reason: Error): void => messages.forEach((_, at) => this.#settle(String(first + at), reason));
      const timer = setTimeout(() => fail(unavailable('nats does not acknowledge')), this.#timeoutMs);
      try {
        messages.forEach((message, at) => this.#send(message, String(first + at)));
      } catch (error) {
        fail(unavailable(messageOf(error), { cause: error }));
      }
    });
    return failures;
  }

  [Symbol.dispose](): void {
    if (!this.#connection.isClosed()) this.#subscription.unsubscribe();
  }

  #send({ subject, id, payload }: StreamMessage, token: string): void {
    const headers = this.#newHeaders();
    headers.set('Nats-Msg-Id', id);
    this.#connection.publish(subject, payload, { headers, reply: `${this.#inbox}.${token}` });
  }

  #answered(error: Error | null, message: Msg): void {
    const token = message.subject.slice(message.subject.lastIndexOf('.') + 1);
    if (this.#awaited.has(token)) this.#settle(token, error ?? failureOf(message));
  }

  #settle(token: string, failure: Error | undefined): void {
    const settle = this.#awaited.get(token);
    this.#awaited.delete(token);
    settle?.(failure);
  }
}

function failureOf(message: Msg): Error | undefined {
  if (message.headers?.code === noResponders) return unavailable('nats has no stream for events');
  try {
    const { error } = message.json<Acknowledgement>();
    return error === undefined ? undefined : unavailable(`nats refused an event: ${error.description ?? ''}`);
  } catch (cause) {
    return unavailable('nats gave an answer that is none', { cause });
  }
}
