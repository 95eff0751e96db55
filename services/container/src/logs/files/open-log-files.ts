import { closeSync, fstatSync, openSync, read, readSync, statSync } from 'node:fs';
import { openCompressed } from './compressed-log.js';
import type { LogFile } from './log-file.js';
import type { LogFormat } from './log-format.js';
import { listLogNames } from './rotated-names.js';

/** A shorter rest is read at once, without the thread pool. */
const SYNC_READ_BYTES = 64 * 1024;
const NEWLINE = 0x0a;

class PlainLogFile implements LogFile {
  readonly inode: string;
  readonly isCompressed = false;
  readonly #fd: number;

  constructor(path: string) {
    this.#fd = openSync(path, 'r');
    this.inode = String(fstatSync(this.#fd, { bigint: true }).ino);
  }

  size(): number {
    return fstatSync(this.#fd).size;
  }

  read(buffer: Buffer, at: number, length: number, offset: number): Promise<number> | number {
    if (length <= SYNC_READ_BYTES) return readSync(this.#fd, buffer, at, length, offset);
    return new Promise((resolve, reject) => {
      read(this.#fd, buffer, at, length, offset, (error, got) => {
        if (error === null) resolve(got);
        else reject(error);
      });
    });
  }

  close(): void {
    closeSync(this.#fd);
  }
}

/** The files of a log that exist, oldest first. The caller closes them. */
export function openLogFiles(path: string): LogFile[] {
  const files: LogFile[] = [];
  let last = -1;
  try {
    for (const name of listLogNames(path)) {
      if (name.index === last) continue;
      last = name.index;
      const file = openOne(name.path, name.isCompressed);
      if (file !== undefined) files.push(file);
    }
  } catch (error) {
    for (const file of files) file.close();
    throw error;
  }
  return files;
}

function openOne(path: string, isCompressed: boolean): LogFile | undefined {
  try {
    return isCompressed ? openCompressed(path) : new PlainLogFile(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}

/** Whether `file` is the log's current one. */
export function isCurrent(path: string, file: LogFile): boolean {
  try {
    return String(statSync(path, { bigint: true }).ino) === file.inode && !file.isCompressed;
  } catch {
    return false;
  }
}

/** The time of the entry that ends at `offset`, '' at the beginning. */
export async function timeBefore(file: LogFile, offset: number, format: LogFormat): Promise<string> {
  const tail = Buffer.alloc(Math.min(offset, 64));
  let length = 0;
  while (length < tail.length) {
    const got = await file.read(tail, length, tail.length - length, offset - tail.length + length);
    if (got === 0) return '';
    length += got;
  }
  return tail.at(-1) === NEWLINE ? format.timeOf(tail, tail.length - 1) : '';
}
