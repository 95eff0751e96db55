import { closeSync, constants, openSync } from 'node:fs';
import { CLONE_NEWNS, MS_PRIVATE, MS_REC } from './constants.js';
import type { Call, KernelPath } from './libc.js';
import { bind, cPath, checkResult, showPath } from './libc.js';
import { mount } from './mounts.js';

type Path = string | Buffer;
const unshareCall: Call<[number]> = bind('int unshare(int flags)');
const setnsCall: Call<[number, number]> = bind('int setns(int fd, int type)');
const chrootCall: Call<[Path]> = bind('int chroot(const char *path)');
const chdirCall: Call<[Path]> = bind('int chdir(const char *path)');
const pivotRootCall: Call<[Path, Path]> = bind('int pivot_root(const char *newRoot, const char *putOld)');
const fchdirCall: Call<[number]> = bind('int fchdir(int fd)');
const setdomainnameCall: Call<[string, number]> = bind('int setdomainname(const char *name, size_t length)');
const umaskCall: Call<[number]> = bind('uint32_t umask(uint32_t mask)');

/**
 * Parts the calling thread from the others: unshare(2) with `CLONE_*` flags. After `CLONE_FS` the thread has a root,
 * working directory and umask of its own. Call `startThreadPool` before the first such thread starts.
 */
export function unshare(flags: number): void {
  checkResult(unshareCall(flags), `unshare 0x${flags.toString(16)}`);
}

/** Moves the calling thread into the namespace behind `fd`; `flags` 0 takes any kind. */
export function setns(fd: number, flags = 0): void {
  checkResult(setnsCall(fd, flags), `enter namespace of descriptor ${fd}`);
}

/** Sets the NIS domain name of the calling thread's UTS namespace. */
export function setDomainName(name: string): void {
  checkResult(setdomainnameCall(name, Buffer.byteLength(name)), `set domain name ${name}`);
}

/** Changes the root of the calling thread and of all that share its file system information. */
export function chroot(path: KernelPath): void {
  checkResult(chrootCall(cPath(path)), `chroot ${showPath(path)}`);
}

/** pivot_root(2): makes the mount point `newRoot` the root of the mount namespace; the old one is mounted at `putOld` then. */
export function pivotRoot(newRoot: KernelPath, putOld: KernelPath): void {
  checkResult(pivotRootCall(cPath(newRoot), cPath(putOld)), `pivot root to ${showPath(newRoot)}`);
}

/** chdir(2): unlike `process.chdir`, allowed in a worker thread. */
export function chdir(path: KernelPath): void {
  checkResult(chdirCall(cPath(path)), `chdir ${showPath(path)}`);
}

export function fchdir(fd: number): void {
  checkResult(fchdirCall(fd), `chdir to descriptor ${fd}`);
}

/** Sets the umask and returns the old one. */
export function umask(mask: number): number {
  return umaskCall(mask);
}

/**
 * Run `fn` in a copy of the thread's mount namespace, where nothing that is mounted shows outside or outlives it. For threads that have unshared `CLONE_FS`;
 * their root and working directory are what they were afterwards.
 */
export function inOwnMounts<T>(fn: () => T): T {
  const directory = constants.O_RDONLY | constants.O_DIRECTORY;
  const outside = openSync('/proc/thread-self/ns/mnt', constants.O_RDONLY);
  const root = openSync('/', directory);
  const cwd = openSync('.', directory);
  try {
    unshare(CLONE_NEWNS);
    try {
      mount(null, '/', null, MS_PRIVATE | MS_REC);
      return fn();
    } finally {
      setns(outside, CLONE_NEWNS);
      fchdir(root);
      chroot('.');
      fchdir(cwd);
    }
  } finally {
    for (const fd of [outside, root, cwd]) closeSync(fd);
  }
}
