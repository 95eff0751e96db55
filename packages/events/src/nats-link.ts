import type { NatsConnection } from 'nats';
import { messageOf } from '@flotilla/errors';
import type { Logger } from '@flotilla/log';

/** Where NATS is. Credentials come from the service's configuration file. */
export interface NatsAddress {
  url: string;
  user?: string | undefined;
  pass?: string | undefined;
}

// Age of the process below which the client is not even loaded: nothing that a start waits for needs NATS.
const startMs = 300;
const firstRetryMs = 50;
const lastRetryMs = 2000;
// NATS and its users start side by side.
const quietMs = 2000;

/**
 * A connection that comes back for ever. Every connection is a new one, so that whoever uses it starts from a known position;
 * the client's own silent reconnect would leave requests and consumers of before in an unknown state.
 */
export class NatsLink implements AsyncDisposable {
  readonly #log: Logger;
  readonly #name: string;
  readonly #waiters = new Set<(connection: NatsConnection | undefined) => void>();
  #address: NatsAddress;
  #connection: NatsConnection | undefined;
  readonly #stop = new AbortController();
  #wakeRetry: () => void = () => undefined;
  readonly #running: Promise<void>;

  constructor(address: NatsAddress, name: string, log: Logger) {
    this.#address = address;
    this.#name = name;
    this.#log = log;
    this.#running = this.#run();
  }

  /** The open connection, or undefined while there is none. */
  get connection(): NatsConnection | undefined {
    return this.#connection?.isClosed() === true ? undefined : this.#connection;
  }

  /** Waits for an open connection; undefined once the link is disposed or the signal fires. */
  async connected(signal?: AbortSignal): Promise<NatsConnection | undefined> {
    const open = this.connection;
    if (open !== undefined) return open;
    if (this.#isStopped() || signal?.aborted === true) return undefined;
    return new Promise((resolve) => {
      const finish = (connection: NatsConnection | undefined) => {
        this.#waiters.delete(finish);
        signal?.removeEventListener('abort', abort);
        resolve(connection);
      };
      const abort = () => {
        finish(undefined);
      };
      this.#waiters.add(finish);
      signal?.addEventListener('abort', abort, { once: true });
    });
  }

  /** NATS has moved (its port was taken while it was down). */
  setAddress(address: NatsAddress): void {
    this.#address = address;
    this.#wakeRetry();
    this.#connection?.close().catch(() => undefined);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    this.#wakeRetry();
    await this.#connection?.close().catch(() => undefined);
    await this.#running;
    for (const wake of [...this.#waiters]) wake(undefined);
  }

  async #run(): Promise<void> {
    if (performance.now() < startMs) await this.#pause(startMs - performance.now());
    let retryMs = firstRetryMs;
    let isReported = false;
    let awaySince = performance.now();
    while (!this.#isStopped()) {
      try {
        const { connect } = await import('nats');
        const { url, user, pass } = this.#address;
        const connection = await connect({
          servers: url,
          name: this.#name,
          ...(user === undefined ? {} : { user }),
          ...(pass === undefined ? {} : { pass }),
          reconnect: false,
          timeout: 2000,
          // A NATS that hangs (stopped, swapping) is noticed within 6 seconds.
          pingInterval: 3000,
          maxPingOut: 1,
        });
        retryMs = firstRetryMs;
        isReported = false;
        await this.#use(connection);
        awaySince = performance.now();
      } catch (error) {
        if (!isReported && performance.now() - awaySince > quietMs) {
          this.#log.warn({ error: messageOf(error) }, 'nats is not reachable, trying on');
          isReported = true;
        }
      }
      if (this.#isStopped()) return;
      await this.#pause(retryMs);
      retryMs = Math.min(retryMs * 2, lastRetryMs);
    }
  }

  async #use(connection: NatsConnection): Promise<void> {
    // Disposed or moved while the connection was being made.
    if (this.#isStopped()) {
      await connection.close();
      return;
    }
    this.#connection = connection;
    this.#log.debug({ server: connection.getServer() }, 'nats connected');
    for (const wake of [...this.#waiters]) wake(connection);
    const error = await connection.closed();
    this.#connection = undefined;
    if (!this.#isStopped()) this.#log.info({ error: error?.message }, 'nats connection ended');
  }

  #isStopped(): boolean {
    return this.#stop.signal.aborted;
  }

  #pause(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const finish = () => {
        clearTimeout(timer);
        resolve();
      };
      const timer = setTimeout(finish, ms);
      this.#wakeRetry = finish;
    });
  }
}
