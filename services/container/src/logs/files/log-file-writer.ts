import {
  closeSync,
  constants,
  fstatSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  readSync,
  rmSync,
  statfsSync,
  writeSync,
} from 'node:fs';
import { dirname } from 'node:path';
import { hasCode } from '@flotilla/sys';
import type { LogSinkConfig } from '../log-config.js';
import { compressRotated } from './compressed-log.js';
import { type EntryEncoder, MAX_ENTRY_BYTES, type OutputStream } from './entry-encoder.js';
import type { Place } from './position.js';
import { formatOf, type LogFormat } from './log-format.js';
import { removeLeftovers, rotateNames } from './rotated-names.js';

/** How many bytes in front of a piece the writer may use: the beginning of a line that arrived with an earlier piece goes there. */
export const HEADROOM_BYTES = MAX_ENTRY_BYTES;

const PARTIAL_HEADER_BYTES = 16;
/** Free space that ends a stop for want of it, and how often it is looked at. */
const roomBytes = 8 << 20;
const betweenLooksMs = 1000;
const NEWLINE = 0x0a;

/**
 * Appends output to a log, synchronously: when `append` returns, the kernel has every whole line. The beginning of a line
 * that has no end yet is kept beside the log (`<path>.partial`), so that a killed process loses nothing of it.
 */
export class LogFileWriter {
  readonly path: string;
  readonly #format: LogFormat;
  readonly #encoder: EntryEncoder;
  readonly #maxSizeBytes: number;
  readonly #maxFiles: number;
  #fd: number;
  #size: number;
  #inode: bigint;
  readonly #partialFd: number;
  readonly #partials: [Buffer, Buffer] = [Buffer.alloc(0), Buffer.alloc(0)];
  #partialOnDisk = false;
  /** Bytes of entries that could not be written (disk full) since the last success. */
  lostBytes = 0;
  /** Bytes of entries that were written by this object. */
  writtenBytes = 0;
  readonly #compresses: boolean;
  readonly #closing = new AbortController();
  #compressing: Promise<void> | undefined;
  /** While the disk is full: when to look at it again. */
  #nextLookMs: number | undefined;

  /**
   * @param resume The same run of the container goes on after a restart of this process: the beginnings of lines that were kept are taken up. Otherwise they become entries of the earlier run.
   * @param output Room for encoding, `ENCODER_OUTPUT_BYTES`; writers in one thread share it.
   * @throws Error of node:fs when the file cannot be opened.
   */
  constructor(config: LogSinkConfig, resume: boolean, output: Buffer) {
    this.path = config.path;
    this.#format = formatOf(config);
    this.#encoder = this.#format.encoder(output);
    this.#maxSizeBytes = config.maxSizeBytes ?? Infinity;
    this.#maxFiles = Math.max(1, config.maxFiles ?? 1);
    this.#compresses = (config.compress ?? false) && this.#maxFiles > 1;
    mkdirSync(dirname(this.path), { recursive: true, mode: 0o710 });
    removeLeftovers(this.path);
    this.#fd = openSync(this.path, 'a+', 0o640);
    const stat = fstatSync(this.#fd, { bigint: true });
    this.#inode = stat.ino;
    this.#size = this.#cutTornEntry(Number(stat.size));
    this.#partialFd = openSync(`${this.path}.partial`, constants.O_RDWR | constants.O_CREAT, 0o640);
    this.#readPartials();
    if (!resume) {
      this.end(1);
      this.end(2);
    }
    this.#compress();
  }

  /** Bytes in the current file. */
  get size(): number {
    return this.#size;
  }

  /** Identifies the current file. */
  get inode(): bigint {
    return this.#inode;
  }

  /** Right behind the last entry; undefined after entries were lost. */
  get place(): Place | undefined {
    if (this.lostBytes > 0) return undefined;
    const { text } = this.#encoder.clock;
    return { inode: String(this.#inode), offset: this.#size, time: text[0] === 0 ? '' : text.toString('latin1') };
  }

  /** What stands at the end of a stream without a newline yet. */
  partialOf(stream: OutputStream): Uint8Array {
    return this.#partials[stream - 1] ?? Buffer.alloc(0);
  }

  /** Append `source[start, end)`; `start` is at least `HEADROOM_BYTES`, and what is in front of it may be overwritten. */
  append(stream: OutputStream, source: Buffer, start: number, end: number): void {
    const partial = this.partialOf(stream);
    let position = start - partial.length;
    if (partial.length > 0) source.set(partial, position);
    this.#encoder.clock.advance();
    for (;;) {
      const next = this.#encoder.encode(source, position, end, stream, this.#maxSizeBytes - this.#size);
      const stopped = next === position;
      position = next;
      this.#flush();
      if (stopped) break;
    }
    if (position < end || partial.length > 0) {
      this.#partials[stream - 1] = Buffer.from(source.subarray(position, end));
      this.#savePartials();
    }
  }

  /** The stream ended: what has no newline becomes an entry of its own. */
  end(stream: OutputStream): void {
    const partial = this.partialOf(stream);
    if (partial.length === 0) return;
    this.#encoder.clock.advance();
    this.#encoder.encodeRest(partial, 0, partial.length, stream);
    this.#flush();
    this.#partials[stream - 1] = Buffer.alloc(0);
    this.#savePartials();
  }

  /** Let go of the files. With `ended`, the run is over and no beginning of a line is kept. */
  close(ended: boolean): void {
    this.#closing.abort();
    closeSync(this.#fd);
    closeSync(this.#partialFd);
    if (ended) rmSync(`${this.path}.partial`, { force: true });
  }

  /** Write what the encoder holds. Never leaves a piece of an entry in the file. */
  #flush(): void {
    const encoder = this.#encoder;
    if (encoder.length > 0) {
      if (!this.#hasRoom()) this.lostBytes += encoder.length;
      else this.#write(encoder.output, encoder.length);
      encoder.length = 0;
    }
    if (this.#size >= this.#maxSizeBytes) this.#rotate();
  }

  #write(output: Buffer, length: number): void {
    let written = 0;
    try {
      while (written < length) written += writeSync(this.#fd, output, written, length - written);
      this.#size += written;
      this.writtenBytes += written;
      this.lostBytes = 0;
    } catch (error) {
      // The disk is full, or the file system broke: the container goes on, its output is lost, as with dockerd.
      this.lostBytes += length;
      if (hasCode(error, 'ENOSPC')) this.#nextLookMs = Date.now() + betweenLooksMs;
      if (written > 0) ftruncateSync(this.#fd, this.#size);
    }
  }

  /** After the disk was full, logs wait until there is room for more than them: the engine's own records come first. */
  #hasRoom(): boolean {
    if (this.#nextLookMs === undefined) return true;
    if (Date.now() < this.#nextLookMs) return false;
    this.#nextLookMs = Date.now() + betweenLooksMs;
    const { bavail, bsize } = statfsSync(dirname(this.path));
    if (bavail * bsize < roomBytes) return false;
    this.#nextLookMs = undefined;
    return true;
  }

  /** Where no new file can be made the old one is kept, and the next flush tries again. */
  #rotate(): void {
    let fresh: number | undefined;
    try {
      fresh = openSync(`${this.path}.next`, 'a+', 0o640);
      rotateNames(this.path, `${this.path}.next`, this.#maxFiles);
    } catch (error) {
      if (fresh !== undefined) closeSync(fresh);
      if (hasCode(error, 'ENOSPC')) return;
      throw error;
    }
    closeSync(this.#fd);
    this.#fd = fresh;
    this.#inode = fstatSync(this.#fd, { bigint: true }).ino;
    this.#size = 0;
    this.#compress();
  }

  /** What was rotated is compressed meanwhile, one file at a time. */
  #compress(): void {
    if (!this.#compresses) return;
    const before = this.#compressing ?? Promise.resolve();
    this.#compressing = before.then(() => compressRotated(this.path, this.#closing.signal)).catch(() => undefined);
  }

  /**
   * A crash of the machine may leave a piece of an entry at the end of the file, or zeros in place of many: cut them. Returns the size. Also sets
   * the clock behind the last entry.
   */
  #cutTornEntry(size: number): number {
    const tail = Buffer.alloc(Math.min(size, this.#encoder.maxEntryOutput * 2));
    let [whole, time] = [0, ''];
    for (let end = size; end > 0 && whole === 0; end -= tail.length) {
      const start = Math.max(0, end - tail.length);
      const got = readSync(this.#fd, tail, 0, end - start, start);
      const after = got === 0 ? 0 : tail.lastIndexOf(NEWLINE, got - 1) + 1;
      if (after === 0) continue;
      whole = start + after;
      time = this.#format.timeOf(tail, after - 1);
    }
    if (time !== '') this.#encoder.clock.startAfter(time);
    if (whole < size) ftruncateSync(this.#fd, whole);
    return whole;
  }

  /**
   * Keep the beginnings of lines: u64 size and u64 inode of the log they follow, then for each stream u32 length and the bytes, little-endian. They count
   * only together with a log of that size: written after the entries, they are out of date when the process died in between.
   */
  #savePartials(): void {
    const [out, err] = this.#partials;
    if (out.length + err.length === 0) {
      if (this.#partialOnDisk) ftruncateSync(this.#partialFd, 0);
      this.#partialOnDisk = false;
      return;
    }
    const record = Buffer.allocUnsafe(PARTIAL_HEADER_BYTES + 8 + out.length + err.length);
    record.writeBigUInt64LE(BigInt(this.#size), 0);
    record.writeBigUInt64LE(this.#inode, 8);
    record.writeUInt32LE(out.length, PARTIAL_HEADER_BYTES);
    record.writeUInt32LE(err.length, PARTIAL_HEADER_BYTES + 4);
    record.set(out, PARTIAL_HEADER_BYTES + 8);
    record.set(err, PARTIAL_HEADER_BYTES + 8 + out.length);
    try {
      writeSync(this.#partialFd, record, 0, record.length, 0);
      this.#partialOnDisk = true;
    } catch {
      // Disk full: only a crash from now on would lose the line's beginning.
    }
  }

  #readPartials(): void {
    const record = Buffer.alloc(PARTIAL_HEADER_BYTES + 8 + 2 * MAX_ENTRY_BYTES);
    const length = readSync(this.#partialFd, record, 0, record.length, 0);
    if (length < PARTIAL_HEADER_BYTES + 8) return;
    this.#partialOnDisk = true;
    const outLength = record.readUInt32LE(PARTIAL_HEADER_BYTES);
    const errLength = record.readUInt32LE(PARTIAL_HEADER_BYTES + 4);
    if (record.readBigUInt64LE(0) !== BigInt(this.#size) || record.readBigUInt64LE(8) !== this.#inode) return;
    const start = PARTIAL_HEADER_BYTES + 8;
    if (length < start + outLength + errLength) return;
    this.#partials[0] = Buffer.from(record.subarray(start, start + outLength));
    this.#partials[1] = Buffer.from(record.subarray(start + outLength, start + outLength + errLength));
  }
}
