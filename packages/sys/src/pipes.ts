import { O_CLOEXEC } from './constants.js';
import type { Call } from './libc.js';
import { bind, checkResult } from './libc.js';

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

/** A second descriptor of the same open file, with which it shares its position; close-on-exec. */
export function duplicateFd(fd: number): number {
  return checkResult(fcntlInt(fd, F_DUPFD_CLOEXEC, 0), `duplicate descriptor ${fd}`);
}
