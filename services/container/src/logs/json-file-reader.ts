import { closeSync, fstatSync, openSync, read, readSync } from 'node:fs';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { JsonLineDecoder, timeOfLine } from './json-line-decoder.js';
import { timeText } from './line-clock.js';
import type { LiveLogs } from './live-logs.js';
import type { LogBatch, LogReadOptions } from './log-config.js';

const BLOCK_BYTES = 512 * 1024;
const BATCH_BYTES = 256 * 1024;
/** A shorter rest is read at once, without the thread pool. */
const SYNC_READ_BYTES = 64 * 1024;
const TAIL_BLOCK_BYTES = 64 * 1024;
const NEWLINE = 0x0a;
const MAX_TIMER_MS = 2 ** 31 - 1;

/** A place in the log: right after the entry of `time`, which ends at `offset` of the file `inode`. */
interface Place {
  readonly inode: string;
  readonly offset: number;
  readonly time: string;
}

interface OpenFile {
  readonly fd: number;
  readonly inode: string;
}

export type LogReadRequest = Omit<LogReadOptions, 'signal'> & {
  /** Read no further than this place. */
  readonly stopAt?: string;
};

/**
 * Read a json-file log over its rotated files, oldest first, as batches of at most about 256 KiB. With `follow` it goes on as long as `live` has the log.
 * Whoever aborts `signal` then calls `live.touch(path)`. A file that disappears while it is being read is read to its end.
 */
export async function* readJsonFileLog(
  path: string,
  options: LogReadRequest,
  live: LiveLogs,
  signal: AbortSignal,
): AsyncGenerator<LogBatch> {
  // Whether the log goes on is asked before its end is looked at, so that nothing falls in between.
  const files = openFiles(path);
  try {
    yield* new JsonFileReading(path, options, live, signal, files).batches();
  } finally {
    for (const file of files) closeSync(file.fd);
  }
}

/** Where a log ends now: a position for `stopAt`. */
export function endOfLog(path: string): string {
  const files = openFiles(path);
  try {
    const newest = files.at(-1);
    if (newest === undefined) return positionText({ inode: '0', offset: 0, time: '' });
    const offset = sizeOf(newest);
    return positionText({ inode: newest.inode, offset, time: timeBefore(newest, offset) });
  } finally {
    for (const file of files) closeSync(file.fd);
  }
}

class JsonFileReading {
  readonly #path: string;
  readonly #options: LogReadRequest;
  readonly #live: LiveLogs;
  readonly #signal: AbortSignal;
  /** Oldest first; files found later are put at the end. The caller closes them. */
  readonly #files: OpenFile[];
  readonly #decoder: JsonLineDecoder;
  #buffer = Buffer.allocUnsafeSlow(BLOCK_BYTES);
  #place: Place = { inode: '0', offset: 0, time: '' };

  constructor(path: string, options: LogReadRequest, live: LiveLogs, signal: AbortSignal, files: OpenFile[]) {
    this.#path = path;
    this.#options = options;
    this.#live = live;
    this.#signal = signal;
    this.#files = files;
    const place = options.position === undefined ? undefined : parsePosition(options.position);
    const start = this.#start(place);
    this.#place = start.place;
    files.splice(0, start.skippedFiles).forEach((file) => closeSync(file.fd));
    this.#decoder = new JsonLineDecoder(
      {
        stdout: options.stdout,
        stderr: options.stderr,
        raw: options.terminal,
        timestamps: options.timestamps,
        details: options.details,
        framePerLine: options.framePerLine ?? false,
        since: options.since === undefined ? undefined : timeText(options.since),
        until: options.until === undefined ? undefined : timeText(options.until),
        after: start.after,
      },
      BATCH_BYTES,
    );
  }

  async *batches(): AsyncGenerator<LogBatch> {
    const { follow } = this.#options;
    const stopAt = this.#options.stopAt === undefined ? undefined : parsePosition(this.#options.stopAt);
    if (follow) yield this.#batch();
    // Without `follow` the end is where the log ends now: a container that writes fast would never let it end.
    const newest = this.#files.at(-1);
    const stop = follow ? undefined : (stopAt ?? (newest && { inode: newest.inode, offset: sizeOf(newest) }));
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
        const isLast = stop !== undefined && stop.inode === file.inode;
        yield* this.#readFile(file, isLast ? stop.offset : Infinity);
        if (this.#decoder.finished || this.#signal.aborted || isLast) return;
        if (index + 1 < this.#files.length || !follow) break;
        const live = this.#live.get(this.#path);
        if (this.#openNewer() || this.#place.offset < wholeSize(file, this.#place.offset)) {
          // A newer file means that this one grows no more; what came in between is read first.
          if (this.#place.offset < wholeSize(file, this.#place.offset)) continue;
          break;
        }
        if (live === undefined || !(await this.#moreOrEnd())) return;
      }
    }
  }

  /** Decode a file from `#place` to its present end, at most to `end`. */
  async *#readFile(file: OpenFile, end: number): AsyncGenerator<LogBatch> {
    let filled = 0;
    let offset = this.#place.offset;
    while (!this.#signal.aborted) {
      const wanted = Math.min(this.#buffer.length - filled, end - offset);
      const got = wanted <= 0 ? 0 : await readSome(file.fd, this.#buffer, filled, wanted, offset, end);
      if (got === 0) break;
      offset += got;
      filled += got;
      let position = 0;
      for (;;) {
        const next = this.#decoder.decode(this.#buffer, position, filled);
        if (next > position) {
          this.#place = {
            inode: file.inode,
            offset: this.#place.offset + (next - position),
            time: timeOfLine(this.#buffer, next - 1) || this.#place.time,
          };
        }
        const full = this.#hasLine(next, filled);
        position = next;
        if (this.#decoder.finished || !full) break;
        yield this.#batch();
      }
      if (this.#decoder.finished) break;
      if (position === 0 && filled === this.#buffer.length) {
        this.#buffer = Buffer.concat([this.#buffer, Buffer.allocUnsafe(this.#buffer.length)]);
      } else {
        this.#buffer.copyWithin(0, position, filled);
        filled -= position;
      }
    }
    if (this.#decoder.length > 0) yield this.#batch();
  }

  #hasLine(start: number, end: number): boolean {
    const at = this.#buffer.indexOf(NEWLINE, start);
    return at >= 0 && at < end;
  }

  #batch(): LogBatch {
    return { frames: this.#decoder.take(), position: positionText(this.#place) };
  }

  /** Wait until the log changes. False when nobody writes it any more, or the reader is gone. */
  async #moreOrEnd(): Promise<boolean> {
    const log = this.#live.get(this.#path);
    if (log === undefined) return false;
    if (this.#signal.aborted) return false;
    const { until } = this.#options;
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

  /** Look for files newer than the newest that is open. */
  #openNewer(): boolean {
    const present = openFiles(this.#path);
    const known = this.#files.at(-1);
    const at = known === undefined ? -1 : present.findIndex((file) => file.inode === known.inode);
    present.slice(0, at + 1).forEach((file) => closeSync(file.fd));
    const newer = present.slice(at + 1);
    this.#files.push(...newer);
    return newer.length > 0;
  }

  #start(place: Place | undefined): { place: Place; skippedFiles: number; after: string | undefined } {
    const files = this.#files;
    if (place !== undefined && place.time !== '') {
      const at = files.findIndex((file) => file.inode === place.inode);
      const file = files[at];
      // An inode may be used again for another file: the entry before the place tells.
      if (file !== undefined && sizeOf(file) >= place.offset && timeBefore(file, place.offset) === place.time) {
        return { place, skippedFiles: at, after: undefined };
      }
      return { place: { inode: '0', offset: 0, time: place.time }, skippedFiles: 0, after: place.time };
    }
    const { tail } = this.#options;
    if (place === undefined && tail !== undefined) return { ...findTail(files, tail), after: undefined };
    return { place: { inode: '0', offset: 0, time: '' }, skippedFiles: 0, after: undefined };
  }
}

function isAborted(signal: AbortSignal): boolean {
  return signal.aborted;
}

/** Where the last `count` lines begin. */
function findTail(files: readonly OpenFile[], count: number): { place: Place; skippedFiles: number } {
  const block = Buffer.allocUnsafe(TAIL_BLOCK_BYTES);
  // The newline that ends the last line belongs to it.
  let left = count;
  for (let index = files.length - 1; index >= 0; index--) {
    const file = files[index];
    if (file === undefined) break;
    const size = sizeOf(file);
    let isEnd = true;
    for (let end = size; end > 0;) {
      const start = Math.max(0, end - block.length);
      const got = readSync(file.fd, block, 0, end - start, start);
      for (let at = got - 1; at >= 0; at--) {
        if (block[at] !== NEWLINE) continue;
        if (isEnd && start + at === size - 1 && left > 0) {
          isEnd = false;
          continue;
        }
        isEnd = false;
        if (left > 0) left--;
        if (left === 0) {
          const offset = start + at + 1;
          return { place: { inode: file.inode, offset, time: timeBefore(file, offset) }, skippedFiles: index };
        }
      }
      end = start;
    }
    // The first line of the file has no newline before it.
    if (size > 0 && left > 0) left--;
    if (left === 0) return { place: { inode: file.inode, offset: 0, time: '' }, skippedFiles: index };
  }
  return { place: { inode: '0', offset: 0, time: '' }, skippedFiles: 0 };
}

/** The files of a log that exist, oldest first. */
function openFiles(path: string): OpenFile[] {
  const files: OpenFile[] = [];
  for (let index = 0; ; index++) {
    let fd: number;
    try {
      fd = openSync(index === 0 ? path : `${path}.${index}`, 'r');
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') break;
      for (const file of files) closeSync(file.fd);
      throw error;
    }
    files.unshift({ fd, inode: String(fstatSync(fd, { bigint: true }).ino) });
  }
  return files;
}

function sizeOf(file: OpenFile): number {
  return fstatSync(file.fd).size;
}

/** The size, but `offset` when no whole line follows it: another writer's unfinished line must not make us run in circles. */
function wholeSize(file: OpenFile, offset: number): number {
  const size = sizeOf(file);
  if (size <= offset) return offset;
  const last = Buffer.alloc(1);
  readSync(file.fd, last, 0, 1, size - 1);
  return last[0] === NEWLINE ? size : offset;
}

/** The time of the entry that ends at `offset`, '' at the beginning. */
function timeBefore(file: OpenFile, offset: number): string {
  const tail = Buffer.alloc(Math.min(offset, 64));
  readSync(file.fd, tail, 0, tail.length, offset - tail.length);
  return tail.at(-1) === NEWLINE ? timeOfLine(tail, tail.length - 1) : '';
}

function readSome(
  fd: number,
  buffer: Buffer,
  at: number,
  length: number,
  offset: number,
  end: number,
): Promise<number> | number {
  const known = Math.min(fstatSync(fd).size, end) - offset;
  if (known <= 0) return 0;
  if (known <= SYNC_READ_BYTES) return readSync(fd, buffer, at, Math.min(length, known), offset);
  return new Promise((resolve, reject) => {
    read(fd, buffer, at, length, offset, (error, got) => {
      if (error === null) resolve(got);
      else reject(error);
    });
  });
}

function positionText(place: Place): string {
  return `${place.inode}:${place.offset}:${place.time}`;
}

/** A place that is not understood is the beginning: showing lines twice is better than losing them. */
function parsePosition(text: string): Place {
  const match = /^(\d+):(\d+):([0-9TZ:.-]*)$/.exec(text);
  if (match === null) return { inode: '0', offset: 0, time: '' };
  return { inode: match[1] ?? '0', offset: Number(match[2]), time: match[3] ?? '' };
}
