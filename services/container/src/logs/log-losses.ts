import type { Logger } from '@flotilla/log';

const BETWEEN_REPORTS_MS = 10_000;

/** Counts entries that were given up before they were sent to another machine, and says so now and then. */
export class LogLosses {
  /** Since this process began. */
  totalBytes = 0;
  readonly #log: Logger;
  readonly #waiting = new Map<string, number>();
  #timer: NodeJS.Timeout | undefined;

  constructor(log: Logger) {
    this.#log = log;
  }

  add(path: string, bytes: number): void {
    this.totalBytes += bytes;
    this.#waiting.set(path, (this.#waiting.get(path) ?? 0) + bytes);
    if (this.#timer !== undefined) return;
    this.#report();
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      this.#report();
    }, BETWEEN_REPORTS_MS).unref();
  }

  #report(): void {
    for (const [path, bytes] of this.#waiting) {
      this.#log.warn({ path, bytes }, 'entries were lost before they were sent');
    }
    this.#waiting.clear();
  }
}
