import { normalTime } from './frame-decoder.js';
import type { LogFile } from './log-file.js';
import type { LogFormat } from './log-format.js';

const NEWLINE = 0x0a;
const TAIL_BLOCK_BYTES = 64 * 1024;
const PROBE_BYTES = 4 * 1024;
/** Longer than any entry of ours; a foreign one that is longer makes the search less sharp. */
const MAX_PROBE_BYTES = 256 * 1024;
/** So much is read instead of searched further. */
const NEAR_BYTES = 32 * 1024;

/** Where reading begins: in the file of this index. */
export interface StartPlace {
  readonly index: number;
  readonly offset: number;
}

const BEGINNING: StartPlace = { index: 0, offset: 0 };

/** Where the last `count` lines begin, found from the end. */
export async function findTail(files: readonly LogFile[], count: number): Promise<StartPlace> {
  let left = count;
  for (let index = files.length - 1; index >= 0; index--) {
    const file = files[index];
    if (file === undefined) break;
    const found = await (file.isCompressed ? tailForward(file, left) : tailBackward(file, left));
    if (found.offset !== undefined) return { index, offset: found.offset };
    left -= found.lines;
  }
  return BEGINNING;
}

type Tail = { offset: number } | { offset: undefined; lines: number };

async function tailBackward(file: LogFile, count: number): Promise<Tail> {
  const block = Buffer.allocUnsafe(TAIL_BLOCK_BYTES);
  const size = file.size();
  let lines = 0;
  // What follows the last newline is no line: a crash of the machine left it.
  let isEndSeen = false;
  for (let end = size; end > 0;) {
    const start = Math.max(0, end - block.length);
    const got = await file.read(block, 0, end - start, start);
    for (
      let at = block.lastIndexOf(NEWLINE, got - 1);
      at >= 0;
      at = at === 0 ? -1 : block.lastIndexOf(NEWLINE, at - 1)
    ) {
      // The last newline belongs to the last line.
      if (!isEndSeen && count > 0) isEndSeen = true;
      else if (count === 0 || ++lines === count) return { offset: start + at + 1 };
    }
    end = start;
  }
  // The first line has no newline before it.
  if (isEndSeen) lines++;
  if (lines >= count) return { offset: 0 };
  return { offset: undefined, lines };
}

/** As `tailBackward` for a file that can only be read forward: once to count, once to find. */
async function tailForward(file: LogFile, count: number): Promise<Tail> {
  if (count === 0) return { offset: file.size() };
  const lines = await walkLines(file, () => false);
  if (lines.count < count) return { offset: undefined, lines: lines.count };
  const skipped = lines.count - count;
  return { offset: skipped === 0 ? 0 : (await walkLines(file, (seen) => seen === skipped)).offset };
}

async function walkLines(file: LogFile, stop: (seen: number) => boolean): Promise<{ count: number; offset: number }> {
  const block = Buffer.allocUnsafe(TAIL_BLOCK_BYTES);
  let count = 0;
  for (let offset = 0; ;) {
    const got = await file.read(block, 0, block.length, offset);
    if (got === 0) return { count, offset };
    for (let at = block.indexOf(NEWLINE); at >= 0 && at < got; at = block.indexOf(NEWLINE, at + 1)) {
      if (stop(++count)) return { count, offset: offset + at + 1 };
    }
    offset += got;
  }
}

/** A place before which all entries are older than `since`, close to the first that is not: entries lie in the order of their times. */
export async function findSince(files: readonly LogFile[], since: string, format: LogFormat): Promise<StartPlace> {
  for (let index = files.length - 1; index >= 0; index--) {
    const file = files[index];
    if (file === undefined) break;
    const first = await timeAfter(file, 0, file.size(), format);
    if (first === undefined || first.time >= since) continue;
    return { index, offset: file.isCompressed ? 0 : await searchFile(file, since, format) };
  }
  return BEGINNING;
}

async function searchFile(file: LogFile, since: string, format: LogFormat): Promise<number> {
  let low = 0;
  let high = file.size();
  while (high - low > NEAR_BYTES) {
    const middle = low + Math.floor((high - low) / 2);
    const entry = await timeAfter(file, middle, high, format);
    if (entry !== undefined && entry.time < since) low = entry.end;
    else high = middle;
  }
  return low;
}

/** Time and end of the first entry that ends in `[offset, limit)`. */
async function timeAfter(
  file: LogFile,
  offset: number,
  limit: number,
  format: LogFormat,
): Promise<{ time: string; end: number } | undefined> {
  // An entry that ends right after `offset` has its time before it.
  const begin = Math.max(0, offset - 64);
  for (let length = PROBE_BYTES; length <= MAX_PROBE_BYTES; length *= 8) {
    const block = Buffer.allocUnsafe(Math.min(length, limit - begin));
    let got = 0;
    while (got < block.length) {
      const more = await file.read(block, got, block.length - got, begin + got);
      if (more === 0) break;
      got += more;
    }
    const filled = block.subarray(0, got);
    for (let at = filled.indexOf(NEWLINE, offset - begin); at >= 0; at = filled.indexOf(NEWLINE, at + 1)) {
      const time = format.timeOf(filled, at);
      if (time !== '') return { time: normalTime(time), end: begin + at + 1 };
    }
    if (got < length) break;
  }
  return undefined;
}
