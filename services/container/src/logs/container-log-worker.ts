import { closeSync } from 'node:fs';
import { parentPort } from 'node:worker_threads';
import { readBuffer } from './fifo-reader.js';
import { messageOf } from '@flotilla/errors';
import { ENCODER_OUTPUT_BYTES } from './files/entry-encoder.js';
import { LiveLogs } from './files/live-logs.js';
import { readLog } from './files/log-file-reader.js';
import { READ_CREDITS, type LogWorkerReply, type LogWorkerRequest } from './log-worker-protocol.js';
import { OutputPump, type PumpContext } from './output-pump.js';
import { Senders } from './shipping/senders.js';

/** A `docker logs` under way. */
interface Reading {
  readonly abort: AbortController;
  readonly path: string;
  credits: number;
  wake: (() => void) | undefined;
}

/** The thread that moves all containers' output: FIFOs to logs and attachments, logs to readers. */
class LogWorkerThread {
  readonly #context: PumpContext;
  readonly #pumps = new Map<number, OutputPump>();
  readonly #readings = new Map<number, Reading>();

  constructor(post: (reply: LogWorkerReply, transfer?: ArrayBuffer[]) => void) {
    const live = new LiveLogs();
    this.#context = {
      post,
      live,
      senders: new Senders(live),
      readBuffer: readBuffer(),
      encoderOutput: Buffer.allocUnsafeSlow(ENCODER_OUTPUT_BYTES),
    };
  }

  handle(request: LogWorkerRequest): void {
    switch (request.type) {
      case 'open':
        this.#open(request);
        break;
      case 'begin':
        this.#pumps.get(request.sink)?.begin();
        break;
      case 'attach':
        this.#attach(request.sink, request.attachment);
        break;
      case 'detach':
        this.#pumps.get(request.sink)?.detach();
        break;
      case 'ack':
        this.#pumps.get(request.sink)?.consumed(request.bytes);
        break;
      case 'finish':
        this.#pumps.get(request.sink)?.finish();
        break;
      case 'close':
        this.#pumps.get(request.sink)?.close(request.ended);
        this.#pumps.delete(request.sink);
        this.#context.post({ type: 'closed', sink: request.sink });
        break;
      case 'read':
        void this.#read(request);
        break;
      case 'ack-read': {
        const reading = this.#readings.get(request.read);
        if (reading === undefined) break;
        reading.credits++;
        reading.wake?.();
        break;
      }
      case 'cancel-read': {
        const reading = this.#readings.get(request.read);
        if (reading === undefined) break;
        reading.abort.abort();
        reading.wake?.();
        this.#context.live.touch(reading.path);
        break;
      }
    }
  }

  #open(request: Extract<LogWorkerRequest, { type: 'open' }>): void {
    let error: string | undefined;
    try {
      this.#pumps.set(request.sink, new OutputPump(request, this.#context));
    } catch (cause) {
      error = messageOf(cause);
      closeSync(request.stdoutFd);
      if (request.stderrFd !== undefined) closeSync(request.stderrFd);
    }
    this.#context.post({ type: 'opened', sink: request.sink, error });
  }

  #attach(sink: number, attachment: number): void {
    const pump = this.#pumps.get(sink);
    if (pump !== undefined) pump.attach(attachment);
    else {
      const partials = new Uint8Array(0);
      this.#context.post({ type: 'attached', sink, attachment, position: '', partials, place: '' });
    }
  }

  async #read({ read, log, options }: Extract<LogWorkerRequest, { type: 'read' }>): Promise<void> {
    const { post, live } = this.#context;
    const reading: Reading = { abort: new AbortController(), path: log.path, credits: READ_CREDITS, wake: undefined };
    this.#readings.set(read, reading);
    let error: string | undefined;
    try {
      for await (const { frames, position } of readLog(log, options, live, reading.abort.signal)) {
        post({ type: 'batch', read, frames, position }, [frames.buffer as ArrayBuffer]);
        reading.credits--;
        while (reading.credits === 0 && !reading.abort.signal.aborted) {
          await new Promise<void>((resolve) => (reading.wake = resolve));
        }
        if (reading.abort.signal.aborted) break;
      }
    } catch (cause) {
      error = String(cause);
    }
    this.#readings.delete(read);
    post({ type: 'read-ended', read, error });
  }
}

const port = parentPort;
if (port === null) throw new Error('to be started as a worker thread');
const thread = new LogWorkerThread((reply, transfer) => port.postMessage(reply, transfer ?? []));
port.on('message', (request: LogWorkerRequest) => thread.handle(request));
