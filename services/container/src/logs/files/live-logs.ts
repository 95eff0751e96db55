/** A log that is being written in this thread. */
export interface LiveLog {
  /** Settles after the next append, rotation or end. */
  changed(): Promise<void>;
}

/** The logs that are being written in this thread, by the path of the current file. */
export class LiveLogs {
  readonly #logs = new Map<string, { waiting: (() => void)[] }>();

  get(path: string): LiveLog | undefined {
    const log = this.#logs.get(path);
    if (log === undefined) return undefined;
    return { changed: () => new Promise((resolve) => log.waiting.push(resolve)) };
  }

  open(path: string): void {
    this.#logs.set(path, { waiting: [] });
  }

  touch(path: string): void {
    const log = this.#logs.get(path);
    if (log === undefined || log.waiting.length === 0) return;
    const { waiting } = log;
    log.waiting = [];
    for (const resolve of waiting) resolve();
  }

  close(path: string): void {
    const log = this.#logs.get(path);
    this.#logs.delete(path);
    for (const resolve of log?.waiting ?? []) resolve();
  }
}
