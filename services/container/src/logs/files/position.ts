import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import type { LogFormat } from './log-format.js';

/** A place in a log: right after the entry of `time`, which ends at `offset` of the file `inode`. */
export interface Place {
  readonly inode: string;
  readonly offset: number;
  readonly time: string;
}

export function positionText(place: Place): string {
  return `${place.inode}:${place.offset}:${place.time}`;
}

/** A place that is not understood is the beginning: showing lines twice is better than losing them. */
export function parsePosition(text: string): Place {
  const match = /^(\d+):(\d+):([0-9TZ:.-]*)$/.exec(text);
  if (match === null) return { inode: '0', offset: 0, time: '' };
  return { inode: match[1] ?? '0', offset: Number(match[2]), time: match[3] ?? '' };
}

/** Where a log ends now: a position for `stopAt`. */
export function endOfLog(path: string, format: LogFormat): string {
  let fd: number;
  try {
    fd = openSync(path, 'r');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    return positionText({ inode: '0', offset: 0, time: '' });
  }
  try {
    const { ino, size } = fstatSync(fd, { bigint: true });
    const offset = Number(size);
    const tail = Buffer.alloc(Math.min(offset, 64));
    readSync(fd, tail, 0, tail.length, offset - tail.length);
    const time = tail.at(-1) === 0x0a ? format.timeOf(tail, tail.length - 1) : '';
    return positionText({ inode: String(ino), offset, time });
  } finally {
    closeSync(fd);
  }
}
