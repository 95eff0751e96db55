import { O_CLOEXEC } from './constants.js';
import { constants } from 'node:os';
import type { Call } from './libc.js';
import { bind, checkResult, lastErrno } from './libc.js';
import { SysError } from './sys-error.js';

const pipe2Call: Call<[Int32Array, number]> = bind('int pipe2(_Out_ int *fds, int flags)');
const F_SETPIPE_SZ = 1031;
const F_DUPFD_CLOEXEC = 1030;
const fcntlInt: Call<[number, number, number]> = bind('int fcntl(int fd, int command, int argument)');

export interface Pipe {
  readFd: number;
  writeFd: number;
}

/** A pipe whose ends the caller closes. Both are close-on-exec unless `flags` says otherwise. */
export function pipe2(flags: number = O_CLOEXEC): Pipe {
  const fds = new Int32Array(2);
  checkResult(pipe2Call(fds, flags), 'make a pipe');
  return { readFd: fds[0] ?? -1, writeFd: fds[1] ?? -1 };
}

/** Sets the capacity of a pipe and returns the one it got. Unprivileged callers are held to /proc/sys/fs/pipe-max-size. */
export function setPipeSize(fd: number, bytes: number): number {
  return checkResult(fcntlInt(fd, F_SETPIPE_SZ, bytes), `set size of pipe ${fd} to ${bytes}`);
}

/** A second descriptor of the same open file, with which it shares its position, not below `lowest`; close-on-exec. */
export function duplicateFd(fd: number, lowest = 0): number {
  return checkResult(fcntlInt(fd, F_DUPFD_CLOEXEC, lowest), `duplicate descriptor ${fd}`);
}

const spliceCall: Call<[number, null, number, null, number, number]> = bind(
  'int64_t splice(int in, int64_t *inOffset, int out, int64_t *outOffset, size_t length, unsigned int flags)',
);
const SPLICE_F_NONBLOCK = 2;

/**
 * Moves up to `length` bytes from a file, at its position, into a pipe without copying them; gives how many.
 *
 * undefined: the pipe is full for now. 0: the file has no more.
 * @throws SysError `EPIPE` when nobody reads the pipe any more
 */
export function spliceToPipe(fileFd: number, pipeFd: number, length: number): number | undefined {
  const moved = spliceCall(fileFd, null, pipeFd, null, length, SPLICE_F_NONBLOCK);
  if (moved >= 0) return moved;
  const errno = lastErrno();
  if (errno === constants.errno.EAGAIN || errno === constants.errno.EINTR) return undefined;
  throw new SysError(`splice descriptor ${fileFd} to pipe ${pipeFd}`, errno);
}

const pollCall: Call<[Int32Array, number, number]> = bind(
  'int poll(_Inout_ int32_t *fds, unsigned long count, int timeout)',
);
export const POLLIN = 0x1;
export const POLLOUT = 0x4;

/** Waits, blocking the thread, until one of the descriptors is ready or failed; says for each whether it is. */
export function poll(waits: readonly { fd: number; events: number }[]): boolean[] {
  // struct pollfd: int fd; short events; short revents.
  const fds = new Int32Array(waits.length * 2);
  waits.forEach(({ fd, events }, at) => fds.set([fd, events], at * 2));
  const result = pollCall(fds, waits.length, -1);
  if (result < 0 && lastErrno() !== constants.errno.EINTR) throw new SysError('poll', lastErrno());
  return waits.map((_, at) => (fds[at * 2 + 1] ?? 0) >>> 16 !== 0);
}
