import { closeSync, constants, openSync, readSync, writeSync } from 'node:fs';

const RECORD_BYTES = 128;

/** Remembers, beside a log, up to where it was sent. */
export class SentPosition {
  readonly #fd: number;
  #isClosed = false;

  constructor(logPath: string) {
    this.#fd = openSync(`${logPath}.sent`, constants.O_RDWR | constants.O_CREAT, 0o640);
  }

  /** Undefined when nothing was sent yet. */
  read(): string | undefined {
    const record = Buffer.alloc(RECORD_BYTES);
    const length = readSync(this.#fd, record, 0, RECORD_BYTES, 0);
    const text = record.toString('latin1', 0, length).trimEnd();
    return text === '' ? undefined : text;
  }

  /** One write of fixed size: a crash leaves the old record or the new one. */
  write(position: string): void {
    if (this.#isClosed) return;
    try {
      writeSync(this.#fd, position.padEnd(RECORD_BYTES - 1) + '\n', 0, 'latin1');
    } catch {
      // The disk is full: after a crash some entries are sent again.
    }
  }

  close(): void {
    if (!this.#isClosed) closeSync(this.#fd);
    this.#isClosed = true;
  }
}
