import { setImmediate as nextTurn } from 'node:timers/promises';
import type { LogBatch, LogReadOptions, LogSinkConfig } from '../log-config.js';
import { normalTime } from './frame-decoder.js';
import type { LogFile } from './log-file.js';
import { isCurrent, openLogFiles, timeBefore } from './open-log-files.js';
import { formatOf, type LogFormat } from './log-format.js';
import { timeText } from './line-clock.js';
import type { LiveLogs } from './live-logs.js';
import { findSince, findTail, type StartPlace } from './place-search.js';
import { type Place, parsePosition, positionText } from './position.js';

const BLOCK_BYTES = 512 * 1024;
const BATCH_BYTES = 256 * 1024;
const NEWLINE = 0x0a;
const MAX_TIMER_MS = 2 ** 31 - 1;

export type LogReadRequest = Omit<LogReadOptions, 'signal'>;

/** The part of a request that says which entries are read. */
export type LogRange = Pick<LogReadRequest, 'since' | 'until' | 'tail' | 'follow' | 'position' | 'stopAt'>;

/** Makes batches of the entries that are read. */
export interface BatchDecoder {
  /** What `take` would give. */
  readonly length: number;
  /** Nothing more is wanted. */
  readonly finished: boolean;
  /** Takes whole lines of `source[start, end)`; gives the position after the last one that it took. */
  decode(source: Buffer, start: number, end: number): number;
  take(): Uint8Array<ArrayBuffer>;
}

/**
 * Read a log over its rotated files, oldest first, as batches of at most about 256 KiB. With `follow` it goes on as long as `live` has the log.
 * Whoever aborts `signal` then calls `live.touch(path)`. A file that disappears while it is being read is read to its end.
 */
export async function* readLog(
  log: Pick<LogSinkConfig, 'driver' | 'path' | 'attributes'>,
  options: LogReadRequest,
  live: LiveLogs,
  signal: AbortSignal,
): AsyncGenerator<LogBatch> {
  const format = formatOf(log);
  const decoderFor = (after: string | undefined): BatchDecoder =>
    format.decoder(
      {
        stdout: options.stdout,
        stderr: options.stderr,
        raw: options.terminal,
        timestamps: options.timestamps,
        details: options.details,
        framePerLine: options.framePerLine ?? false,
        since: options.since === undefined ? undefined : timeText(options.since),
        until: options.until === undefined ? undefined : timeText(options.until),
        after,
      },
      BATCH_BYTES,
    );
  yield* readEntries(log.path, format, options, decoderFor, live, signal);
}

/** As `readLog`, with batches of the caller's making. `after`: entries at or before this time are not wanted. */
export async function* readEntries(
  path: string,
  format: LogFormat,
  range: LogRange,
  decoderFor: (after: string | undefined) => BatchDecoder,
  live: LiveLogs,
  signal: AbortSignal,
): AsyncGenerator<LogBatch> {
  // Whether the log goes on is asked before its end is looked at, so that nothing falls in between.
  const files = openLogFiles(path);
  try {
    yield* new LogReading(path, format, range, decoderFor, live, signal, files).batches();
  } finally {
    for (const file of files) file.close();
  }
}

class LogReading {
  readonly #path: string;
  readonly #format: LogFormat;
  readonly #range: LogRange;
  readonly #decoderFor: (after: string | undefined) => BatchDecoder;
  readonly #live: LiveLogs;
  readonly #signal: AbortSignal;
  /** Oldest first; files found later are put at the end. The caller closes them. */
  readonly #files: LogFile[];
  #buffer = Buffer.allocUnsafeSlow(BLOCK_BYTES);
  #place: Place = { inode: '0', offset: 0, time: '' };

  constructor(
    path: string,
    format: LogFormat,
    range: LogRange,
    decoderFor: (after: string | undefined) => BatchDecoder,
    live: LiveLogs,
    signal: AbortSignal,
    files: LogFile[],
  ) {
    this.#path = path;
    this.#format = format;
    this.#range = range;
    this.#decoderFor = decoderFor;
    this.#live = live;
    this.#signal = signal;
    this.#files = files;
  }

  async *batches(): AsyncGenerator<LogBatch> {
    const { follow } = this.#range;
    const stopAt = this.#range.stopAt === undefined ? undefined : parsePosition(this.#range.stopAt);
    // Without `follow` the end is where the log ends now: a container that writes fast would never let it end.
    const newest = this.#files.at(-1);
    const stop = follow ? undefined : (stopAt ?? (newest && { inode: newest.inode, offset: newest.size() }));
    // An inode may be used again when what it held was compressed: the newest counts.
    const stopFile = this.#files.findLast((file) => file.inode === stop?.inode);
    const start = await this.#start();
    this.#place = start.place;
    this.#files.splice(0, start.index).forEach((file) => file.close());
    const decoder = this.#decoderFor(start.after);
    if (follow) yield this.#batch(decoder);
    for (let index = 0; ; index++) {
      // The log may have been empty, or its first file not there yet.
      while (index >= this.#files.length) {
        if (!follow || !(await this.#moreOrEnd())) return;
        this.#openNewer();
      }
      const file = this.#files[index];
      if (file === undefined) return;
      if (this.#place.inode !== file.inode) this.#place = { ...this.#place, inode: file.inode, offset: 0 };
      for (;;) {
        const isLast = stop !== undefined && file === stopFile;
        yield* this.#readFile(file, isLast ? stop.offset : Infinity, decoder);
        if (decoder.finished || this.#signal.aborted || isLast) return;
        if (index + 1 < this.#files.length || !follow) break;
        const live = this.#live.get(this.#path);
        if (this.#openNewer() || (await this.#grew(file))) {
          // A newer file means that this one grows no more; what came in between is read first.
          if (await this.#grew(file)) continue;
          break;
        }
        if (live === undefined || !(await this.#moreOrEnd())) return;
      }
    }
  }

  /** Decode a file from `#place` to its present end, at most to `end`. */
  async *#readFile(file: LogFile, end: number, decoder: BatchDecoder): AsyncGenerator<LogBatch> {
    let filled = 0;
    let offset = this.#place.offset;
    while (!this.#signal.aborted) {
      const wanted = Math.min(this.#buffer.length - filled, end - offset);
      const present = Math.min(wanted, file.size() - offset);
      const got = present <= 0 ? 0 : await file.read(this.#buffer, filled, present, offset);
      if (got === 0) break;
      offset += got;
      filled += got;
      let position = 0;
      for (;;) {
        const next = decoder.decode(this.#buffer, position, filled);
        if (next > position) {
          this.#place = {
            inode: file.inode,
            offset: this.#place.offset + (next - position),
            time: this.#format.timeOf(this.#buffer, next - 1) || this.#place.time,
          };
        }
        const full = this.#hasLine(next, filled);
        position = next;
        if (decoder.finished || !full) break;
        yield this.#batch(decoder);
      }
      if (decoder.finished) break;
      if (position === 0 && filled === this.#buffer.length) {
        this.#buffer = Buffer.concat([this.#buffer, Buffer.allocUnsafe(this.#buffer.length)]);
      } else {
        this.#buffer.copyWithin(0, position, filled);
        filled -= position;
      }
    }
    if (decoder.length > 0) yield this.#batch(decoder);
  }

  #hasLine(start: number, end: number): boolean {
    const at = this.#buffer.indexOf(NEWLINE, start);
    return at >= 0 && at < end;
  }

  #batch(decoder: BatchDecoder): LogBatch {
    return { frames: decoder.take(), position: positionText(this.#place) };
  }

  /** Wait until the log changes. False when nobody writes it any more, or the reader is gone. */
  async #moreOrEnd(): Promise<boolean> {
    const log = this.#live.get(this.#path);
    if (log === undefined) return false;
    if (this.#signal.aborted) return false;
    const { until } = this.#range;
    const timer =
      until === undefined
        ? undefined
        : setTimeout(
            () => this.#live.touch(this.#path),
            Math.min(MAX_TIMER_MS, Math.max(0, Number(until / 1_000_000n) - Date.now() + 1)),
          );
    // Whoever aborts touches the log too.
    await log.changed();
    clearTimeout(timer);
    if (until !== undefined && BigInt(Date.now()) * 1_000_000n > until) return false;
    // What is read in one turn of the loop makes one batch.
    await nextTurn();
    return !isAborted(this.#signal);
  }

  /** Whether a whole entry follows the place: another writer's unfinished one must not make us run in circles. */
  async #grew(file: LogFile): Promise<boolean> {
    const size = file.size();
    if (size <= this.#place.offset) return false;
    const last = Buffer.alloc(1);
    return (await file.read(last, 0, 1, size - 1)) === 1 && last[0] === NEWLINE;
  }

  /** Look for files newer than the newest that is open. */
  #openNewer(): boolean {
    const known = this.#files.at(-1);
    if (known !== undefined && isCurrent(this.#path, known)) return false;
    const present = openLogFiles(this.#path);
    // While we have it open, no other file gets its inode.
    const at = known === undefined ? -1 : present.findIndex((file) => file.inode === known.inode);
    present.splice(0, at + 1).forEach((file) => file.close());
    this.#files.push(...present);
    return present.length > 0;
  }

  async #start(): Promise<{ place: Place; index: number; after: string | undefined }> {
    const files = this.#files;
    const { position, tail, since } = this.#range;
    const place = position === undefined ? undefined : parsePosition(position);
    if (place !== undefined && place.inode !== '0') {
      for (const [index, file] of files.entries()) {
        if (file.inode !== place.inode || file.size() < place.offset) continue;
        // An inode may be used again for another file: the entry before the place tells. At its beginning a file has none.
        const isIt = place.offset === 0 || (await timeBefore(file, place.offset, this.#format)) === place.time;
        const after = place.offset === 0 && place.time !== '' ? place.time : undefined;
        if (isIt) return { place, index, after };
      }
    }
    if (place !== undefined && place.time !== '') {
      const found = await findSince(files, normalTime(place.time), this.#format);
      return { ...(await this.#placeOf(found)), after: place.time };
    }
    let found: StartPlace = { index: 0, offset: 0 };
    if (place === undefined && tail !== undefined) found = await findTail(files, tail);
    if (place === undefined && since !== undefined) {
      const later = await findSince(files, timeText(since), this.#format);
      if (later.index > found.index || (later.index === found.index && later.offset > found.offset)) found = later;
    }
    return { ...(await this.#placeOf(found)), after: undefined };
  }

  async #placeOf({ index, offset }: StartPlace): Promise<{ place: Place; index: number }> {
    const file = this.#files[index];
    if (file === undefined) return { place: { inode: '0', offset: 0, time: '' }, index: 0 };
    const time = file.isCompressed ? '' : await timeBefore(file, offset, this.#format);
    return { place: { inode: file.inode, offset, time }, index };
  }
}

function isAborted(signal: AbortSignal): boolean {
  return signal.aborted;
}
