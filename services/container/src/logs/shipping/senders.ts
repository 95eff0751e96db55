import type { LiveLogs } from '../files/live-logs.js';
import type { LogSinkConfig } from '../log-config.js';
import { RemoteSender, type SenderHooks } from './remote-sender.js';

/** The senders of a thread's logs; at most one per log at a time. */
export class Senders {
  readonly #live: LiveLogs;
  readonly #byPath = new Map<string, RemoteSender>();

  constructor(live: LiveLogs) {
    this.#live = live;
  }

  /** Undefined for a log that is sent nowhere. What an earlier run left is sent first. */
  start(log: LogSinkConfig, hooks: SenderHooks): RemoteSender | undefined {
    if (log.remote === undefined) return undefined;
    const earlier = this.#byPath.get(log.path);
    earlier?.stop();
    const sender = new RemoteSender(log, log.remote, this.#live, hooks, earlier?.ended);
    this.#byPath.set(log.path, sender);
    void sender.ended.then(() => {
      if (this.#byPath.get(log.path) === sender) this.#byPath.delete(log.path);
    });
    return sender;
  }
}
