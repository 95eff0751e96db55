import type { LogFile } from '../files/log-file.js';
import { openLogFiles } from '../files/open-log-files.js';
import { timeOfLocalLine } from '../files/local-line.js';
import { parsePosition, positionText } from '../files/position.js';

const NEWLINE = 0x0a;
/** Longer than any entry. */
const BLOCK_BYTES = 64 * 1024;

/** Bytes of entries after a position. Undefined when its file is gone. */
export function bytesAfter(path: string, position: string): number | undefined {
  const place = parsePosition(position);
  const files = openLogFiles(path);
  try {
    const at = files.findLastIndex((file) => file.inode === place.inode);
    if (at < 0) return undefined;
    return sizeOf(files.slice(at)) - place.offset;
  } finally {
    for (const file of files) file.close();
  }
}

/** Where at most the last `bytes` of a log begin, at an entry. */
export async function lastBytes(path: string, bytes: number): Promise<string> {
  const files = openLogFiles(path);
  try {
    let left = bytes;
    for (const [back, file] of [...files].reverse().entries()) {
      const size = file.size();
      if (size < left) {
        left -= size;
        continue;
      }
      if (!file.isCompressed) return await entryAfter(file, size - left);
      const next = files[files.length - back];
      return positionText({ inode: next?.inode ?? '0', offset: 0, time: '' });
    }
    return '';
  } finally {
    for (const file of files) file.close();
  }
}

async function entryAfter(file: LogFile, offset: number): Promise<string> {
  const begin = Math.max(0, offset - 64);
  const block = Buffer.alloc(BLOCK_BYTES);
  const got = await file.read(block, 0, BLOCK_BYTES, begin);
  const at = block.subarray(0, got).indexOf(NEWLINE, offset - begin);
  const end = at < 0 ? offset : begin + at + 1;
  return positionText({ inode: file.inode, offset: end, time: at < 0 ? '' : timeOfLocalLine(block, at) });
}

function sizeOf(files: readonly LogFile[]): number {
  return files.reduce((sum, file) => sum + file.size(), 0);
}
