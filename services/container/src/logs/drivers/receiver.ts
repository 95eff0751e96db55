import type { LogEntry } from '../files/local-line.js';

/** Where an entry belongs in a line that was split. */
export interface PartialLine {
  /** The same for all pieces of a line; 64 hex digits. */
  readonly id: string;
  /** From 1. */
  readonly ordinal: number;
  readonly isLast: boolean;
}

/** An entry on its way to a receiver. */
export interface SentEntry extends LogEntry {
  readonly partial: PartialLine | undefined;
}

/** Whoever gets a container's entries. */
export interface Receiver {
  /**
   * Settles when the receiver has the entries, as far as its protocol tells. Rejects when it may not have all of them; they are sent again then.
   * `signal` ends whatever is waited for.
   */
  send(entries: readonly SentEntry[], signal: AbortSignal): Promise<void>;
  /** Let go of connections. */
  close(): void;
}
