import { setTimeout as delay } from 'node:timers/promises';
import { openReceiver } from '../drivers/open-receiver.js';
import type { Receiver, SentEntry } from '../drivers/receiver.js';
import type { LiveLogs } from '../files/live-logs.js';
import { formatOf } from '../files/log-format.js';
import { readEntries } from '../files/log-file-reader.js';
import type { LogSinkConfig } from '../log-config.js';
import type { RemoteConfig } from '../options/remote-config.js';
import { bytesAfter, lastBytes } from './backlog.js';
import { EntryParser, RawEntries } from './entry-batches.js';
import { SentPosition } from './sent-position.js';

const FIRST_WAIT_MS = 250;
const MAX_WAIT_MS = 10_000;
/** After the end of a run, how long what is left may take. The rest is sent when the container runs again. */
const FLUSH_MS = 10_000;

export interface SenderHooks {
  /** Bytes of entries that were written to the log since the sender began. */
  readonly writtenBytes: () => number;
  /** Entries of so many bytes were given up. */
  readonly onLoss: (bytes: number) => void;
  /** The receiver cannot be reached; said once until it can be again. */
  readonly onTrouble: (reason: string) => void;
}

/**
 * Sends a log's entries on as they are written, in their order, each at least once. What cannot be sent waits in the log's files: whoever writes them never
 * waits for a receiver. Entries that leave the files before they were sent, or are more than may wait, are lost and counted.
 */
export class RemoteSender {
  /** Settles when nothing more is sent. */
  readonly ended: Promise<void>;
  readonly #log: LogSinkConfig;
  readonly #remote: RemoteConfig;
  readonly #live: LiveLogs;
  readonly #hooks: SenderHooks;
  readonly #receiver: Receiver;
  readonly #stop = new AbortController();
  readonly #parser = new EntryParser();
  readonly #before: Promise<void>;
  #flushTimer: NodeJS.Timeout | undefined;
  #isInTrouble = false;

  /** Begins when `before`, the end of an earlier sender of the same log, has settled. */
  constructor(
    log: LogSinkConfig,
    remote: RemoteConfig,
    live: LiveLogs,
    hooks: SenderHooks,
    before: Promise<void> = Promise.resolve(),
  ) {
    this.#log = log;
    this.#remote = remote;
    this.#live = live;
    this.#hooks = hooks;
    this.#before = before;
    this.#receiver = openReceiver(remote);
    this.ended = this.#run();
  }

  /** The run is over: send what is left, for a while. */
  finish(): void {
    this.#flushTimer ??= setTimeout(() => this.stop(), FLUSH_MS);
  }

  /** Send nothing more; another process or another run goes on. */
  stop(): void {
    this.#stop.abort();
    this.#live.touch(this.#log.path);
  }

  async #run(): Promise<void> {
    await this.#before;
    let sent: SentPosition | undefined;
    try {
      sent = new SentPosition(this.#log.path);
      let from = sent.read();
      while (!this.#stop.signal.aborted) {
        from = await this.#sendFrom(from, sent);
        if (from === undefined) break;
      }
    } catch (error) {
      // Neither the container nor its log may suffer from it.
      if (!this.#stop.signal.aborted) this.#trouble(error);
    } finally {
      sent?.close();
      clearTimeout(this.#flushTimer);
      this.#receiver.close();
    }
  }

  /** Send until the end. Returns a position when entries were given up and it goes on there. */
  async #sendFrom(from: string | undefined, sent: SentPosition): Promise<string | undefined> {
    const { path } = this.#log;
    const { signal } = this.#stop;
    const range = { follow: true, ...(from === undefined ? {} : { position: from }) };
    const decoderFor = (after: string | undefined) => new RawEntries(after);
    const batches = readEntries(path, formatOf(this.#log), range, decoderFor, this.#live, signal);
    // Bytes of the log, counted from the sender's beginning, up to where was read.
    let reached: number | undefined;
    for await (const { frames, position } of batches) {
      const behind = bytesAfter(path, position);
      const written = this.#hooks.writtenBytes();
      if (behind !== undefined) {
        const now = written - behind;
        // What was skipped had left the files.
        if (reached !== undefined && now > reached + frames.length) this.#hooks.onLoss(now - reached - frames.length);
        reached = now;
      } else if (reached !== undefined) reached += frames.length;
      if (frames.length === 0) continue;
      const entries = this.#parser.parse(Buffer.from(frames.buffer, 0, frames.length));
      const outcome = await this.#deliver(entries, position, frames.length);
      if (signal.aborted && outcome !== 'sent') return undefined;
      if (outcome === 'lost') this.#hooks.onLoss(frames.length);
      if (outcome === 'overflow') {
        const waiting = bytesAfter(path, position) ?? 0;
        const next = await lastBytes(path, this.#log.maxBacklogBytes ?? 0);
        this.#hooks.onLoss(frames.length + Math.max(0, waiting - (bytesAfter(path, next) ?? waiting)));
        sent.write(next);
        return next;
      }
      sent.write(position);
    }
    return undefined;
  }

  async #deliver(
    entries: readonly SentEntry[],
    position: string,
    bytes: number,
  ): Promise<'sent' | 'lost' | 'overflow' | 'stopped'> {
    const { signal } = this.#stop;
    const { maxRetries, retryWaitMs } = {
      ...{ maxRetries: Infinity, retryWaitMs: FIRST_WAIT_MS },
      ...('maxRetries' in this.#remote ? this.#remote : {}),
    };
    for (let attempt = 0; !signal.aborted; attempt++) {
      if (this.#overflows(position, bytes)) return 'overflow';
      try {
        await this.#receiver.send(entries, signal);
        this.#isInTrouble = false;
        return 'sent';
      } catch (error) {
        if (isAborted(signal)) break;
        this.#trouble(error);
        if (attempt >= maxRetries) return 'lost';
        const wait = Math.min(MAX_WAIT_MS, Math.max(1, retryWaitMs) * 1.5 ** Math.min(attempt, 20));
        await delay(wait, undefined, { signal }).catch(() => undefined);
      }
    }
    return 'stopped';
  }

  #overflows(position: string, bytes: number): boolean {
    const limit = this.#log.maxBacklogBytes;
    if (limit === undefined) return false;
    return (bytesAfter(this.#log.path, position) ?? 0) + bytes > Math.max(limit, bytes);
  }

  #trouble(error: unknown): void {
    if (this.#isInTrouble) return;
    this.#isInTrouble = true;
    this.#hooks.onTrouble(error instanceof Error ? error.message : String(error));
  }
}

function isAborted(signal: AbortSignal): boolean {
  return signal.aborted;
}
