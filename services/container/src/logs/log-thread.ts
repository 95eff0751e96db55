import { closeSync } from 'node:fs';
import type { Worker } from 'node:worker_threads';
import { internal } from '@flotilla/errors';
import type { Logger } from '@flotilla/log';
import { startWorker } from '@flotilla/sys';
import type { LogReadRequest } from './files/log-file-reader.js';
import type { LogBatch, LogReader, LogReadOptions, LogSinkConfig } from './log-config.js';
import { LogLosses } from './log-losses.js';
import type { LogWorkerReply, LogWorkerRequest } from './log-worker-protocol.js';

export interface SinkInput {
  readonly log: LogSinkConfig;
  readonly resume: boolean;
  readonly terminal: boolean;
  /** Read ends of FIFOs, not blocking. The sink closes them. */
  readonly stdoutFd: number;
  readonly stderrFd: number | undefined;
}

/** What an attachment to a sink gets; called in order. `place`: an `OutputPosition` behind all that it has got, empty without a log. */
export interface OutputListener {
  /** The attachment began: everything read from now on comes. */
  onAttached(position: string, partials: Uint8Array, place: string): void;
  /** `consumed` is to be called when the bytes have been passed on: output stops when too much is on its way. */
  onOutput(bytes: Uint8Array, consumed: () => void, place: string): void;
}

/** The output of one run, on its way from FIFOs to log and attachments. */
export interface OutputSink {
  /** Settles when all output was read, logged and sent to the attachments, or the sink was closed. */
  readonly ended: Promise<void>;
  /** The returned function ends the attachment. One that was made before `begin` gets everything. */
  attach(listener: OutputListener): () => void;
  /** Begin to read: to be called when the process may write. */
  begin(): void;
  /** The process has ended. */
  finish(): void;
  /** Stop reading. With `runEnded` nobody goes on with this run. Idempotent. */
  close(runEnded: boolean): Promise<void>;
}

/** The thread that moves all containers' output; started on first use. */
export class LogThread {
  readonly #log: Logger;
  readonly #onFailure: (error: Error) => void;
  #worker: Worker | undefined;
  #nextNumber = 1;
  readonly #sinks = new Map<number, Sink>();
  readonly #readings = new Map<number, Reading>();
  readonly #losses: LogLosses;

  /** `onFailure`: the thread died, which only a mistake of ours brings about; the process had better end and be started again. */
  constructor(log: Logger, onFailure: (error: Error) => void) {
    this.#log = log;
    this.#onFailure = onFailure;
    this.#losses = new LogLosses(log);
  }

  /** Bytes of entries that were given up before they were sent. */
  get lostBytes(): number {
    return this.#losses.totalBytes;
  }

  /** @throws EngineError `internal` when the log cannot be opened; the descriptors are closed. */
  async openSink(input: SinkInput): Promise<OutputSink> {
    const number = this.#nextNumber++;
    let post: (request: LogWorkerRequest) => void;
    try {
      post = this.#post();
    } catch (error) {
      closeSync(input.stdoutFd);
      if (input.stderrFd !== undefined) closeSync(input.stderrFd);
      throw error;
    }
    const sink = new Sink(number, post, () => this.#sinks.delete(number));
    this.#sinks.set(number, sink);
    post({ type: 'open', sink: number, ...input });
    await sink.opened;
    return sink;
  }

  openReader(config: LogSinkConfig): LogReader {
    return {
      read: (options) => (config.driver === 'none' ? nothing() : this.#read(config, options)),
    };
  }

  /** Read up to a place that `OutputListener.onAttached` named. */
  readUntil(config: LogSinkConfig, options: LogReadOptions, stopAt: string): AsyncIterable<LogBatch> {
    return config.driver === 'none' ? nothing() : this.#read(config, options, stopAt);
  }

  async close(): Promise<void> {
    await Promise.all([...this.#sinks.values()].map((sink) => sink.close(false)));
    const worker = this.#worker;
    this.#worker = undefined;
    for (const reading of this.#readings.values()) reading.end(undefined);
    this.#readings.clear();
    await worker?.terminate();
  }

  #post(): (request: LogWorkerRequest) => void {
    this.#worker ??= this.#start();
    const worker = this.#worker;
    return (request) => worker.postMessage(request);
  }

  #start(): Worker {
    const worker = startWorker('container-log-worker', import.meta.url);
    worker.on('message', (reply: LogWorkerReply) => this.#handle(reply));
    worker.on('error', (error) => {
      this.#log.error({ err: error }, 'log worker died');
      this.#onFailure(error);
    });
    // Closing is in the owner's hands.
    worker.unref();
    return worker;
  }

  #handle(reply: LogWorkerReply): void {
    switch (reply.type) {
      case 'log-failed':
        this.#log.error({ sink: reply.sink, reason: reply.message }, 'container output could not be logged');
        break;
      case 'not-sent':
        this.#losses.add(reply.path, reply.bytes);
        break;
      case 'not-reached':
        this.#log.warn({ path: reply.path, reason: reply.reason }, 'log receiver cannot be reached');
        break;
      case 'batch':
        this.#readings.get(reply.read)?.push({ frames: reply.frames, position: reply.position });
        break;
      case 'read-ended':
        this.#readings.get(reply.read)?.end(reply.error);
        this.#readings.delete(reply.read);
        break;
      default:
        this.#sinks.get(reply.sink)?.handle(reply);
    }
  }

  async *#read(log: LogSinkConfig, options: LogReadOptions, stopAt?: string): AsyncGenerator<LogBatch> {
    const { signal, ...plain } = options;
    if (isAborted(signal)) return;
    const number = this.#nextNumber++;
    const post = this.#post();
    const request: LogReadRequest = stopAt === undefined ? plain : { ...plain, stopAt };
    const reading = new Reading();
    this.#readings.set(number, reading);
    post({ type: 'read', read: number, log, options: request });
    // A reader that waits leaves as soon as its signal fires.
    const onAbort = () => reading.end(undefined);
    signal?.addEventListener('abort', onAbort, { once: true });
    try {
      for (;;) {
        const batch = await reading.next();
        if (batch === undefined || isAborted(signal)) return;
        yield batch;
        post({ type: 'ack-read', read: number });
      }
    } finally {
      signal?.removeEventListener('abort', onAbort);
      if (this.#readings.delete(number)) post({ type: 'cancel-read', read: number });
    }
  }
}

function isAborted(signal: AbortSignal | undefined): boolean {
  return signal?.aborted === true;
}

async function* nothing(): AsyncGenerator<LogBatch> {
  // The driver keeps nothing.
}

/** Batches that have come and were not asked for yet: at most `READ_CREDITS`. */
class Reading {
  readonly #batches: LogBatch[] = [];
  #isEnded = false;
  #error: string | undefined;
  #wake: (() => void) | undefined;

  push(batch: LogBatch): void {
    this.#batches.push(batch);
    this.#wake?.();
  }

  end(error: string | undefined): void {
    this.#isEnded = true;
    this.#error = error;
    this.#wake?.();
  }

  async next(): Promise<LogBatch | undefined> {
    for (;;) {
      const batch = this.#batches.shift();
      if (batch !== undefined) return batch;
      if (this.#error !== undefined) throw internal(`reading the log failed: ${this.#error}`);
      if (this.#isEnded) return undefined;
      await new Promise<void>((resolve) => (this.#wake = resolve));
    }
  }
}

class Sink implements OutputSink {
  readonly #number: number;
  readonly #post: (request: LogWorkerRequest) => void;
  readonly #forget: () => void;
  readonly #listeners = new Map<number, { listener: OutputListener; isAttached: boolean }>();
  readonly opened: Promise<void>;
  #onOpened: (error: string | undefined) => void = () => undefined;
  readonly ended: Promise<void>;
  #onEnded: () => void = () => undefined;
  #closing: Promise<void> | undefined;
  #onClosed: () => void = () => undefined;
  #nextAttachment = 1;
  /** Bytes sent to an attachment and not consumed, by attachment and batch. */
  readonly #onTheirWay = new Map<number, Set<() => void>>();

  constructor(number: number, post: (request: LogWorkerRequest) => void, forget: () => void) {
    this.#number = number;
    this.#post = post;
    this.#forget = forget;
    this.opened = new Promise((resolve, reject) => {
      this.#onOpened = (error) => {
        if (error === undefined) resolve();
        else reject(internal(`failed to initialize logging driver: ${error}`));
      };
    });
    this.ended = new Promise((resolve) => (this.#onEnded = resolve));
  }

  attach(listener: OutputListener): () => void {
    const attachment = this.#nextAttachment++;
    this.#listeners.set(attachment, { listener, isAttached: false });
    this.#post({ type: 'attach', sink: this.#number, attachment });
    return () => {
      if (!this.#listeners.delete(attachment)) return;
      const open = this.#onTheirWay.get(attachment);
      this.#onTheirWay.delete(attachment);
      for (const consumed of [...(open ?? [])]) consumed();
      this.#post({ type: 'detach', sink: this.#number });
    };
  }

  begin(): void {
    this.#post({ type: 'begin', sink: this.#number });
  }

  finish(): void {
    this.#post({ type: 'finish', sink: this.#number });
  }

  close(runEnded: boolean): Promise<void> {
    this.#closing ??= new Promise<void>((resolve) => {
      this.#onClosed = resolve;
      this.#post({ type: 'close', sink: this.#number, ended: runEnded });
    }).then(() => {
      this.#forget();
      this.#onEnded();
    });
    return this.#closing;
  }

  handle(
    reply: Exclude<LogWorkerReply, { type: 'log-failed' | 'not-sent' | 'not-reached' | 'batch' | 'read-ended' }>,
  ): void {
    switch (reply.type) {
      case 'opened':
        if (reply.error !== undefined) this.#forget();
        this.#onOpened(reply.error);
        break;
      case 'attached': {
        const entry = this.#listeners.get(reply.attachment);
        if (entry === undefined) break;
        entry.isAttached = true;
        entry.listener.onAttached(reply.position, reply.partials, reply.place);
        break;
      }
      case 'output':
        this.#deliver(reply.bytes, reply.place);
        break;
      case 'ended':
        this.#onEnded();
        break;
      case 'closed':
        this.#onClosed();
        break;
    }
  }

  #deliver(bytes: Uint8Array, place: string): void {
    const receivers = [...this.#listeners].filter(([, entry]) => entry.isAttached);
    let missing = receivers.length;
    const acknowledge = () => this.#post({ type: 'ack', sink: this.#number, bytes: bytes.length });
    if (missing === 0) acknowledge();
    for (const [attachment, { listener }] of receivers) {
      let open = this.#onTheirWay.get(attachment);
      if (open === undefined) this.#onTheirWay.set(attachment, (open = new Set()));
      const held = open;
      let isConsumed = false;
      const consumed = () => {
        if (isConsumed) return;
        isConsumed = true;
        held.delete(consumed);
        if (--missing === 0) acknowledge();
      };
      held.add(consumed);
      listener.onOutput(bytes, consumed, place);
    }
  }
}
