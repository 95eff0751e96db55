import type { LogBatch } from '../logs/log-config.js';
import type { OutputSink } from '../logs/log-thread.js';
import { OutputSkip, outputPositionText, parseOutputPosition } from '../logs/output-position.js';
import { DetachScanner } from './detach-scanner.js';
import type { AttachOptions, AttachSession, StreamOptions } from './runtime.js';
import type { StdinWriter } from './stdin-writer.js';

/** One run of a process, as sessions see it. */
export interface Run {
  readonly sink: OutputSink;
  readonly stdin: StdinWriter | undefined;
  /** What the log holds up to `until`, and behind `after` if that is given. */
  readonly readLog: (
    options: { stdout: boolean; stderr: boolean },
    until: string,
    after?: string,
  ) => AsyncIterable<LogBatch>;
}

interface Piece {
  readonly bytes: Uint8Array;
  readonly consumed: () => void;
  /** Behind it; empty when it cannot be resumed there. */
  readonly place: string;
}

const nothingToDo = () => undefined;

/** A client at the streams of a container. */
export class Session implements AttachSession {
  readonly #options: AttachOptions;
  readonly #streams: StreamOptions;
  readonly #forget: (session: Session) => void;
  readonly #queue: Piece[] = [];
  #isOver = false;
  #isReplaying = false;
  #endedWhileReplaying = false;
  #wake: (() => void) | undefined;
  #run: Run | undefined;
  #position: string;
  #onRun: (run: Run | undefined) => void = nothingToDo;
  readonly #started: Promise<Run | undefined>;
  #endAttachment: (() => void) | undefined;
  #onEnded: (how: 'exited' | 'detached') => void = nothingToDo;
  readonly ended: Promise<'exited' | 'detached'>;
  #onReady: () => void = nothingToDo;
  readonly ready: Promise<void>;
  readonly #scanner: DetachScanner | undefined;
  readonly stdin: AttachSession['stdin'];

  constructor(options: AttachOptions, streams: StreamOptions, forget: (session: Session) => void) {
    this.#options = options;
    this.#streams = streams;
    this.#forget = forget;
    this.#position = options.resumeAt ?? '';
    this.ended = new Promise((resolve) => (this.#onEnded = resolve));
    this.ready = new Promise((resolve) => (this.#onReady = resolve));
    this.#started = new Promise((resolve) => (this.#onRun = resolve));
    this.#scanner =
      streams.terminal && options.detachKeys !== undefined ? new DetachScanner(options.detachKeys) : undefined;
    this.stdin = { write: (chunk, taken) => this.#writeStdin(chunk, taken), end: () => this.#endStdin() };
    options.signal?.addEventListener('abort', () => this.#clientLeft(), { once: true });
    if (options.signal?.aborted === true) this.#clientLeft();
  }

  /** The run that the session waited for, or that goes on already, is there. */
  begin(run: Run): void {
    if (this.#isOver || this.#run !== undefined) return;
    this.#run = run;
    this.#onRun(run);
    const { stdout, stderr, resumeAt, stream = true } = this.#options;
    const logs = this.#options.logs === true || resumeAt !== undefined;
    if ((!stdout && !stderr) || (!logs && !stream)) {
      this.#onReady();
      if (!stream) this.#finish('exited');
      return;
    }
    // Live output waits behind what the log has.
    let held: Piece[] | undefined = logs ? [] : undefined;
    this.#endAttachment = run.sink.attach({
      onAttached: (position, partials, place) => {
        if (!logs) this.#position = place;
        this.#onReady();
        if (!logs) return;
        void this.#replay(run, position, partials, place).finally(() => {
          this.#isReplaying = false;
          const pieces = held ?? [];
          held = undefined;
          for (const piece of pieces) this.#push(piece);
          if (!stream || this.#endedWhileReplaying) this.#finish('exited');
        });
      },
      onOutput: (bytes, consumed, place) => {
        const piece = { bytes, consumed, place };
        if (held === undefined) this.#push(piece);
        else held.push(piece);
      },
    });
    this.#isReplaying = logs;
  }

  /** The session's run ended and everything of it was handed over; or there will be no run. */
  runEnded(how: 'exited' | 'detached'): void {
    if (this.#isReplaying) this.#endedWhileReplaying = true;
    else this.#finish(how);
  }

  detach(): void {
    this.#finish('detached');
  }

  get registered(): Promise<void> {
    return this.#run === undefined ? Promise.resolve() : this.ready;
  }

  get position(): string {
    return this.#position;
  }

  get hasRun(): boolean {
    return this.#run !== undefined;
  }

  get isOver(): boolean {
    return this.#isOver;
  }

  get output(): AsyncIterable<Uint8Array> {
    return { [Symbol.asyncIterator]: () => this.#pieces() };
  }

  async *#pieces(): AsyncGenerator<Uint8Array> {
    try {
      for (;;) {
        const piece = this.#queue.shift();
        if (piece !== undefined) {
          this.#position = piece.place;
          yield piece.bytes;
          piece.consumed();
        } else if (this.#isOver) {
          return;
        } else {
          await new Promise<void>((resolve) => (this.#wake = resolve));
        }
      }
    } finally {
      this.#finish('detached');
      for (const piece of this.#queue.splice(0)) piece.consumed();
    }
  }

  async #replay(run: Run, position: string, partials: Uint8Array, place: string): Promise<void> {
    const { stdout, stderr, resumeAt } = this.#options;
    const from = resumeAt === undefined ? undefined : parseOutputPosition(resumeAt);
    const skip = new OutputSkip(from ?? { stdout: 0, stderr: 0 }, this.#streams.terminal);
    try {
      for await (const { frames, position: log } of run.readLog({ stdout, stderr }, position, from?.log)) {
        if (this.#isOver) return;
        const bytes = skip.apply(frames);
        const behind = outputPositionText({ log, ...skip.left });
        if (bytes.length > 0) {
          await new Promise<void>((resolve) => this.#push({ bytes, consumed: resolve, place: behind }));
        }
      }
    } catch {
      // An unreadable log must not take the live output along.
    }
    const rest = skip.apply(partials);
    if (rest.length > 0) this.#push({ bytes: rest, consumed: nothingToDo, place });
  }

  #push(piece: Piece): void {
    const bytes = this.#wanted(piece.bytes);
    if (bytes.length === 0 || this.#isOver) {
      piece.consumed();
      return;
    }
    this.#queue.push({ ...piece, bytes });
    this.#wake?.();
  }

  /** Frames of the streams that were asked for. Batches hold whole frames. */
  #wanted(bytes: Uint8Array): Uint8Array {
    const { stdout, stderr } = this.#options;
    if (this.#streams.terminal || (stdout && stderr)) return bytes;
    const frames = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const wanted: Buffer[] = [];
    for (let at = 0; at + 8 <= frames.length;) {
      const end = at + 8 + frames.readUInt32BE(at + 4);
      if (frames[at] === (stdout ? 1 : 2)) wanted.push(frames.subarray(at, end));
      at = end;
    }
    return wanted.length === 1 && wanted[0] !== undefined ? wanted[0] : Buffer.concat(wanted);
  }

  async #writeStdin(chunk: Uint8Array, taken: () => void = nothingToDo): Promise<void> {
    const run = this.#options.stdin ? (this.#run ?? (await this.#started)) : undefined;
    if (run?.stdin === undefined || this.#isOver) {
      taken();
      return;
    }
    if (this.#scanner === undefined) return run.stdin.write(chunk, taken);
    const { pass, isDetached } = this.#scanner.scan(chunk);
    if (pass.length > 0) await run.stdin.write(pass, taken);
    else taken();
    if (isDetached) this.#finish('detached');
  }

  /**
   * A half-close is the end of input, not a detach: output goes on. (dockerd ends the output too unless `stdinOnce`, and so loses the answer to
   * what was typed last: moby/moby daemon/internal/stream/attach.go, CopyStreams.)
   */
  #endStdin(): void {
    if (!this.#options.stdin || !this.#streams.openStdin) return;
    if (this.#streams.stdinOnce && !this.#streams.terminal) void this.#started.then((run) => run?.stdin?.end());
  }

  #clientLeft(): void {
    this.#endStdin();
    this.#finish('detached');
  }

  #finish(how: 'exited' | 'detached'): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#forget(this);
    this.#endAttachment?.();
    if (how === 'detached') {
      // The client is gone or leaves: what it was not given yet is nobody's.
      for (const piece of this.#queue.splice(0)) piece.consumed();
    }
    this.#onRun(undefined);
    this.#onReady();
    this.#onEnded(how);
    this.#wake?.();
  }
}
