import { internal } from '@flotilla/errors';
import type { EngineError } from '@flotilla/errors';
import { sha256Digest } from '@flotilla/oci';
import type { Digest } from '@flotilla/oci';
import { startWorker } from '@flotilla/sys';
import type { Worker } from 'node:worker_threads';
import { slotBytes } from './blob-writer-protocol.js';
import type { WriterReply, WriterRequest } from './blob-writer-protocol.js';

const maxWorkers = 2;
const idleMs = 20_000;
/** 4 MiB may be on their way to the disk per blob. */
const slotCount = 9;

type Listener = (reply: WriterReply) => void;

let generations = 0;

class WriterThread {
  readonly #worker: Worker;
  readonly #listeners = new Map<number, Listener>();
  readonly ended: Promise<void>;

  constructor() {
    this.#worker = startWorker('blob-download-worker', import.meta.url);
    this.#worker.unref();
    this.#worker.on('message', (reply: WriterReply) => this.#listeners.get(reply.id)?.(reply));
    this.ended = new Promise((resolve) => {
      const fail = (message: string): void => {
        for (const [id, listener] of this.#listeners) listener({ id, kind: 'failed', code: '', message });
        this.#listeners.clear();
        resolve();
      };
      this.#worker.on('error', (error) => fail(error instanceof Error ? error.message : String(error)));
      this.#worker.on('exit', () => fail('the blob writer ended'));
    });
  }

  get load(): number {
    return this.#listeners.size;
  }

  attach(id: number, listener: Listener): void {
    this.#listeners.set(id, listener);
  }

  detach(id: number): void {
    this.#listeners.delete(id);
  }

  send(request: WriterRequest): void {
    this.#worker.postMessage(request);
  }

  async stop(): Promise<void> {
    await this.#worker.terminate();
  }
}

/** Threads that hash and write blobs; started when needed, ended when idle. */
export class BlobWriters implements AsyncDisposable {
  readonly #threads = new Set<WriterThread>();
  #nextId = 1;
  #idleTimer: NodeJS.Timeout | undefined;

  /** Open (or make) a partial file; what it holds is hashed first. */
  async open(path: string): Promise<BlobWriter> {
    clearTimeout(this.#idleTimer);
    const thread = this.#leastLoaded();
    const writer = new BlobWriter(thread, this.#nextId++, () => this.#scheduleStop());
    try {
      await writer.open(path);
    } catch (error) {
      await writer.close();
      throw error;
    }
    return writer;
  }

  #leastLoaded(): WriterThread {
    const best = [...this.#threads].sort((a, b) => a.load - b.load)[0];
    if (best !== undefined && (best.load === 0 || this.#threads.size >= maxWorkers)) return best;
    const thread = new WriterThread();
    this.#threads.add(thread);
    void thread.ended.then(() => this.#threads.delete(thread));
    return thread;
  }

  #scheduleStop(): void {
    clearTimeout(this.#idleTimer);
    this.#idleTimer = setTimeout(() => {
      for (const thread of this.#threads) if (thread.load === 0) void thread.stop();
    }, idleMs);
    this.#idleTimer.unref();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearTimeout(this.#idleTimer);
    await Promise.all([...this.#threads].map((thread) => thread.stop()));
  }
}

/** One blob being written. Any failure (disk full, thread gone) rejects every later call; `close` never rejects. */
export class BlobWriter {
  readonly #thread: WriterThread;
  readonly #id: number;
  readonly #onClosed: () => void;
  #size = 0;
  readonly #slots = new SharedArrayBuffer(slotCount * slotBytes);
  readonly #free = Array.from({ length: slotCount - 1 }, (_, at) => at + 1);
  #slot = 0;
  #batched = 0;
  #pending = 0;
  #written = 0;
  #generation = ++generations;
  #failure: EngineError | undefined;
  #wake: (() => void) | undefined;
  #answer: WriterReply | undefined;

  constructor(thread: WriterThread, id: number, onClosed: () => void) {
    this.#thread = thread;
    this.#id = id;
    this.#onClosed = onClosed;
    thread.attach(id, (reply) => this.#receive(reply));
  }

  /** Bytes given so far, with those that the file held. */
  get size(): number {
    return this.#size;
  }

  /** What others may read of the file, and a number that is never the same after a restart. */
  get partial(): { written: number; generation: number } {
    return { written: this.#written, generation: this.#generation };
  }

  async open(path: string): Promise<void> {
    const reply = await this.#ask({ id: this.#id, kind: 'open', path, slots: this.#slots });
    if (reply.kind === 'opened') this.#size = this.#written = reply.size;
  }

  /** Takes a copy. Waits while much is on its way to the disk. */
  async write(bytes: Uint8Array): Promise<void> {
    this.#size += bytes.length;
    for (let at = 0; at < bytes.length;) {
      const count = Math.min(bytes.length - at, slotBytes - this.#batched);
      new Uint8Array(this.#slots, this.#slot * slotBytes, slotBytes).set(bytes.subarray(at, at + count), this.#batched);
      this.#batched += count;
      at += count;
      if (this.#batched === slotBytes) await this.#flush();
    }
  }

  /** Throw away all that was written. */
  async restart(): Promise<void> {
    await this.#settle();
    this.#batched = 0;
    this.#size = 0;
    this.#written = 0;
    this.#generation = ++generations;
    this.#thread.send({ id: this.#id, kind: 'restart' });
  }

  /** Digest of everything written so far. */
  async digest(): Promise<Digest> {
    await this.#flush();
    const reply = await this.#ask({ id: this.#id, kind: 'digest' });
    if (reply.kind !== 'digest' || reply.size !== this.#size) throw internal('the blob writer lost bytes');
    return sha256Digest(reply.hex);
  }

  /** Write out what is buffered and close the file; it stays for a later resume. */
  async close(): Promise<void> {
    try {
      await this.#flush();
      await this.#ask({ id: this.#id, kind: 'close' });
    } catch {
      // The failure was told by the call that met it.
    } finally {
      this.#thread.detach(this.#id);
      this.#onClosed();
    }
  }

  async #flush(): Promise<void> {
    if (this.#batched > 0) {
      const [slot, count] = [this.#slot, this.#batched];
      this.#pending += count;
      this.#batched = 0;
      this.#thread.send({ id: this.#id, kind: 'write', slot, count });
      while (this.#free.length === 0 && this.#failure === undefined) await this.#next();
      this.#slot = this.#free.shift() ?? slot;
    }
    if (this.#failure !== undefined) throw this.#failure;
  }

  async #settle(): Promise<void> {
    while (this.#pending > 0 && this.#failure === undefined) await this.#next();
    if (this.#failure !== undefined) throw this.#failure;
  }

  async #ask(request: WriterRequest): Promise<WriterReply> {
    if (this.#failure !== undefined) throw this.#failure;
    this.#answer = undefined;
    this.#thread.send(request);
    for (;;) {
      await this.#next();
      // The listener changes both while this waits.
      const { failure, answer } = this.#state();
      if (failure !== undefined) throw failure;
      if (answer !== undefined) return answer;
    }
  }

  #state(): { failure: EngineError | undefined; answer: WriterReply | undefined } {
    return { failure: this.#failure, answer: this.#answer };
  }

  #next(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = resolve;
    });
  }

  #receive(reply: WriterReply): void {
    if (reply.kind === 'failed') this.#failure = internal(diskMessage(reply));
    else if (reply.kind === 'written') {
      this.#pending -= reply.count;
      this.#written += reply.count;
      this.#free.push(reply.slot);
    } else this.#answer = reply;
    this.#wake?.();
    this.#wake = undefined;
  }
}

function diskMessage({ code, message }: { code: string; message: string }): string {
  if (code === 'ENOSPC') return 'write of a layer failed: no space left on device';
  return `write of a layer failed: ${message}`;
}
