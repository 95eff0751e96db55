import { closeSync } from 'node:fs';
import { FifoReader } from './fifo-reader.js';
import type { OutputStream } from './files/entry-encoder.js';
import { requireReceiver } from './drivers/open-receiver.js';
import type { LiveLogs } from './files/live-logs.js';
import { LogFileWriter } from './files/log-file-writer.js';
import { formatOf } from './files/log-format.js';
import { endOfLog, positionText } from './files/position.js';
import type { LogSinkConfig } from './log-config.js';
import { outputPositionText } from './output-position.js';
import type { RemoteSender } from './shipping/remote-sender.js';
import type { Senders } from './shipping/senders.js';
import type { LogWorkerReply, LogWorkerRequest } from './log-worker-protocol.js';

const FRAME_HEADER_BYTES = 8;
const BATCH_BYTES = 256 * 1024;
/** A batch this full is sent at once, as the next piece may not fit. */
const FULL_BATCH_BYTES = BATCH_BYTES - 64 * 1024 - FRAME_HEADER_BYTES;
/** A smaller batch is copied and its buffer used again. */
const SMALL_BATCH_BYTES = 16 * 1024;
/** Reading stops when attachments have not consumed this much... */
const PAUSE_BYTES = 1024 * 1024;
/** ...and goes on at this. */
const RESUME_BYTES = 512 * 1024;
/**
 * After the process's end what is left of its output is taken in whatever attachments have consumed: a client that takes its time loses nothing. It is what
 * FIFOs, shim and pipes hold, less than 1 MiB.
 */
const PAUSE_AT_END_BYTES = PAUSE_BYTES + 1024 * 1024;

/** How long a batch may grow while the last one is not consumed. */
const GROW_MS = 5;

export type Post = (reply: LogWorkerReply, transfer?: ArrayBuffer[]) => void;

/** What pumps of one thread share. */
export interface PumpContext {
  readonly post: Post;
  readonly live: LiveLogs;
  readonly senders: Senders;
  readonly readBuffer: Buffer;
  readonly encoderOutput: Buffer;
}

/** Carries the output of one run of a process from its FIFOs to its log and to attachments. */
export class OutputPump {
  readonly #sink: number;
  readonly #context: PumpContext;
  readonly #isTerminal: boolean;
  readonly #log: LogSinkConfig;
  readonly #logPath: string;
  readonly #readers = new Map<OutputStream, FifoReader>();
  /** Not read yet. */
  readonly #fds = new Map<OutputStream, number>();
  #writer: LogFileWriter | undefined;
  readonly #sender: RemoteSender | undefined;
  #attachments = 0;
  #unconsumed = 0;
  #batch = Buffer.alloc(0);
  #batchLength = 0;
  #frameStart = -1;
  #frameStream: OutputStream = 1;
  #flushing: NodeJS.Immediate | undefined;
  #growing: NodeJS.Timeout | undefined;
  #isPaused = false;
  #pauseBytes = PAUSE_BYTES;
  #lossReported = false;

  /** @throws Error of node:fs when the log cannot be opened; the descriptors are the caller's then. */
  constructor(request: Extract<LogWorkerRequest, { type: 'open' }>, context: PumpContext) {
    this.#sink = request.sink;
    this.#context = context;
    this.#isTerminal = request.terminal;
    this.#log = request.log;
    this.#logPath = request.log.driver === 'none' ? '' : request.log.path;
    if (request.log.remote !== undefined && !request.resume) requireReceiver(request.log.remote);
    if (request.log.driver !== 'none') {
      this.#writer = new LogFileWriter(request.log, request.resume, context.encoderOutput);
      context.live.open(this.#logPath);
      this.#sender = this.#startSender();
    }
    this.#fds.set(1, request.stdoutFd);
    if (request.stderrFd !== undefined) this.#fds.set(2, request.stderrFd);
  }

  begin(): void {
    const fds = [...this.#fds];
    this.#fds.clear();
    for (const [stream, fd] of fds) this.#read(stream, fd);
  }

  attach(attachment: number): void {
    this.#flush();
    this.#attachments++;
    const partials = this.#partialFrames();
    const position = this.#writer === undefined ? '' : endOfLog(this.#log.path, formatOf(this.#log));
    this.#context.post({ type: 'attached', sink: this.#sink, attachment, position, partials, place: this.#place() });
  }

  detach(): void {
    this.#attachments = Math.max(0, this.#attachments - 1);
    if (this.#attachments > 0) return;
    this.#batchLength = 0;
    this.#frameStart = -1;
    this.consumed(this.#unconsumed);
  }

  consumed(bytes: number): void {
    this.#unconsumed = Math.max(0, this.#unconsumed - bytes);
    if (this.#unconsumed === 0 && this.#batchLength > 0) this.#flushSoon();
    if (this.#unconsumed <= RESUME_BYTES) this.#resume();
  }

  finish(): void {
    this.begin();
    this.#pauseBytes = PAUSE_AT_END_BYTES;
    if (!this.#isFull()) this.#resume();
    for (const reader of [...this.#readers.values()]) reader.finish();
  }

  /** With `ended` the run is over; otherwise another process goes on with it. */
  close(ended: boolean): void {
    for (const fd of this.#fds.values()) closeSync(fd);
    this.#fds.clear();
    for (const reader of this.#readers.values()) reader.close();
    this.#readers.clear();
    this.#flush();
    if (ended) this.#endStreams();
    this.#closeLog(ended);
  }

  #read(stream: OutputStream, fd: number): void {
    const reader = new FifoReader(
      fd,
      this.#context.readBuffer,
      (buffer, start, end) => this.#take(stream, buffer, start, end),
      () => {
        this.#readers.delete(stream);
        if (this.#readers.size === 0) this.#end();
      },
    );
    this.#readers.set(stream, reader);
  }

  /** Append what was read before anything else happens. */
  #take(stream: OutputStream, buffer: Buffer, start: number, end: number): void {
    // The writer uses the room before `start` only.
    const writer = this.#writer;
    if (writer !== undefined) {
      try {
        writer.append(stream, buffer, start, end);
      } catch (error) {
        this.#writer = undefined;
        this.#reportLoss(String(error));
      }
      if (writer.lostBytes > 0) this.#reportLoss('write failed: entries are lost');
      this.#context.live.touch(this.#logPath);
    }
    if (this.#attachments > 0) this.#addToBatch(stream, buffer, start, end);
  }

  #addToBatch(stream: OutputStream, buffer: Buffer, start: number, end: number): void {
    if (this.#batch.length === 0) this.#batch = Buffer.allocUnsafeSlow(BATCH_BYTES);
    const batch = this.#batch;
    if (!this.#isTerminal && (this.#frameStart < 0 || this.#frameStream !== stream)) {
      this.#frameStart = this.#batchLength;
      this.#frameStream = stream;
      batch.writeUInt32BE(stream << 24, this.#frameStart);
      this.#batchLength += FRAME_HEADER_BYTES;
    }
    buffer.copy(batch, this.#batchLength, start, end);
    this.#batchLength += end - start;
    if (this.#frameStart >= 0) {
      batch.writeUInt32BE(this.#batchLength - this.#frameStart - FRAME_HEADER_BYTES, this.#frameStart + 4);
    }
    if (this.#batchLength > FULL_BATCH_BYTES) this.#flush();
    else this.#flushSoon();
  }

  /** At the end of this turn; but while attachments are still busy with the last batch, the next one may grow for a moment. */
  #flushSoon(): void {
    if (this.#unconsumed === 0) {
      this.#flushing ??= setImmediate(() => this.#flush());
    } else if (this.#flushing === undefined) {
      this.#growing ??= setTimeout(() => this.#flush(), GROW_MS);
    }
  }

  #flush(): void {
    if (this.#flushing !== undefined) clearImmediate(this.#flushing);
    clearTimeout(this.#growing);
    this.#flushing = undefined;
    this.#growing = undefined;
    const length = this.#batchLength;
    if (length === 0) return;
    this.#batchLength = 0;
    this.#frameStart = -1;
    if (length < SMALL_BATCH_BYTES) {
      const bytes = new Uint8Array(length);
      bytes.set(this.#batch.subarray(0, length));
      this.#context.post({ type: 'output', sink: this.#sink, bytes, place: this.#place() }, [bytes.buffer]);
    } else {
      const buffer = this.#batch.buffer;
      this.#batch = Buffer.alloc(0);
      const bytes = new Uint8Array(buffer, 0, length);
      this.#context.post({ type: 'output', sink: this.#sink, bytes, place: this.#place() }, [buffer]);
    }
    this.#unconsumed += length;
    if (this.#isPaused || !this.#isFull()) return;
    this.#isPaused = true;
    for (const reader of this.#readers.values()) reader.pause();
  }

  /** Behind everything that was read. */
  #place(): string {
    const place = this.#writer?.place;
    if (this.#writer === undefined || place === undefined) return '';
    const [stdout, stderr] = [this.#writer.partialOf(1).length, this.#writer.partialOf(2).length];
    return outputPositionText({ log: positionText(place), stdout, stderr });
  }

  #isFull(): boolean {
    return this.#unconsumed >= this.#pauseBytes;
  }

  #resume(): void {
    if (!this.#isPaused) return;
    this.#isPaused = false;
    for (const reader of [...this.#readers.values()]) {
      reader.resume();
      // What it had to read filled everything again.
      if (this.#isFull()) return;
    }
  }

  /** Beginnings of lines that are in no entry yet. */
  #partialFrames(): Uint8Array {
    const parts: Uint8Array[] = [];
    for (const stream of [1, 2] as const) {
      const partial = this.#writer?.partialOf(stream) ?? new Uint8Array(0);
      if (partial.length === 0) continue;
      const header = Buffer.alloc(FRAME_HEADER_BYTES);
      header[0] = stream;
      header.writeUInt32BE(partial.length, 4);
      if (!this.#isTerminal) parts.push(header);
      parts.push(partial);
    }
    return new Uint8Array(Buffer.concat(parts));
  }

  #end(): void {
    this.#flush();
    this.#endStreams();
    if (this.#logPath !== '') this.#context.live.touch(this.#logPath);
    this.#context.post({ type: 'ended', sink: this.#sink });
  }

  #endStreams(): void {
    this.#writer?.end(1);
    this.#writer?.end(2);
  }

  #closeLog(ended: boolean): void {
    this.#writer?.close(ended);
    if (this.#logPath !== '') this.#context.live.close(this.#logPath);
    this.#writer = undefined;
    if (ended) this.#sender?.finish();
    else this.#sender?.stop();
  }

  #startSender(): RemoteSender | undefined {
    const { post, senders } = this.#context;
    const writer = this.#writer;
    return senders.start(this.#log, {
      writtenBytes: () => writer?.writtenBytes ?? 0,
      onLoss: (bytes) => post({ type: 'not-sent', path: this.#logPath, bytes }),
      onTrouble: (reason) => post({ type: 'not-reached', path: this.#logPath, reason }),
    });
  }

  #reportLoss(message: string): void {
    if (this.#lossReported) return;
    this.#lossReported = true;
    this.#context.post({ type: 'log-failed', sink: this.#sink, message });
  }
}
