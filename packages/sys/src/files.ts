import { constants } from 'node:os';
import type { Call, KernelPath } from './libc.js';
import { bind, cPath, checkResult, lastErrno, showPath } from './libc.js';
import { SysError } from './sys-error.js';

type Path = string | Buffer;
const mkfifoCall: Call<[Path, number]> = bind('int mkfifo(const char *path, uint32_t mode)');
const mknodCall: Call<[Path, number, bigint]> = bind('int mknod(const char *path, uint32_t mode, uint64_t device)');
const utimensatCall: Call<[number, Path, BigInt64Array, number]> = bind(
  'int utimensat(int directory, const char *path, const int64_t *times, int flags)',
);
const futimensCall: Call<[number, BigInt64Array]> = bind('int futimens(int fd, const int64_t *times)');
const syncfsCall: Call<[number]> = bind('int syncfs(int fd)');
const lseek: Call<[number, number, number]> = bind('int64_t lseek(int fd, int64_t offset, int whence)');

const AT_FDCWD = -100;
const AT_SYMLINK_NOFOLLOW = 0x100;
const SEEK_DATA = 3;
const SEEK_HOLE = 4;

/** Makes a FIFO; the umask applies to `mode`. */
export function mkfifo(path: KernelPath, mode: number): void {
  checkResult(mkfifoCall(cPath(path), mode), `make fifo ${showPath(path)}`);
}

/** mknod(2): `mode` holds the file type (`S_IFCHR`, ...) and the permissions; `device` comes from `makeDevice`. */
export function mknod(path: KernelPath, mode: number, device: bigint): void {
  checkResult(mknodCall(cPath(path), mode, device), `make node ${showPath(path)}`);
}

/** The kernel's number of a device: makedev(3). */
export function makeDevice(major: number, minor: number): bigint {
  const high = BigInt(major);
  const low = BigInt(minor);
  return ((high & 0xfffff000n) << 32n) | ((high & 0xfffn) << 8n) | ((low & 0xffffff00n) << 12n) | (low & 0xffn);
}

/** The major and minor number in `rdev`: what `makeDevice` put together. */
export function splitDevice(device: number | bigint): { major: number; minor: number } {
  const value = BigInt(device);
  return {
    major: Number(((value >> 32n) & 0xfffff000n) | ((value >> 8n) & 0xfffn)),
    minor: Number(((value >> 12n) & 0xffffff00n) | (value & 0xffn)),
  };
}

/** A point in time as the kernel takes it; `seconds` may be negative, `nanoseconds` are 0-999999999. */
export interface FileTime {
  seconds: number;
  nanoseconds: number;
}

const times = new BigInt64Array(4);
function fillTimes(mtime: FileTime, atime: FileTime): BigInt64Array {
  times[0] = BigInt(atime.seconds);
  times[1] = BigInt(atime.nanoseconds);
  times[2] = BigInt(mtime.seconds);
  times[3] = BigInt(mtime.nanoseconds);
  return times;
}

/** Sets the times of `path` itself (links are not followed), exact to the nanosecond, unlike Node's utimes. */
export function utimensat(path: KernelPath, mtime: FileTime, atime: FileTime = mtime): void {
  const result = utimensatCall(AT_FDCWD, cPath(path), fillTimes(mtime, atime), AT_SYMLINK_NOFOLLOW);
  checkResult(result, `set times of ${showPath(path)}`);
}

/** As `utimensat`, of an open file. */
export function futimens(fd: number, mtime: FileTime, atime: FileTime = mtime): void {
  checkResult(futimensCall(fd, fillTimes(mtime, atime)), `set times of descriptor ${fd}`);
}

/** Writes the whole file system that holds `fd` to disk: one call in place of an fsync per file. */
export function syncfs(fd: number): void {
  checkResult(syncfsCall(fd), `sync the file system of descriptor ${fd}`);
}

/** The next stretch of an open file, from `offset` on, that is no hole; undefined when only a hole is left. Moves the file's offset. */
export function nextData(fd: number, offset: number): { start: number; end: number } | undefined {
  const what = `seek data in descriptor ${fd}`;
  const start = lseek(fd, offset, SEEK_DATA);
  if (start < 0) {
    const errno = lastErrno();
    if (errno === constants.errno.ENXIO) return undefined;
    throw new SysError(what, errno);
  }
  return { start, end: checkResult(lseek(fd, start, SEEK_HOLE), what) };
}
