import type { Call, KernelPath } from './libc.js';
import { bind, cPath, checkResult, showPath } from './libc.js';

type Path = string | Buffer;
const unshareCall: Call<[number]> = bind('int unshare(int flags)');
const setnsCall: Call<[number, number]> = bind('int setns(int fd, int type)');
const chrootCall: Call<[Path]> = bind('int chroot(const char *path)');
const chdirCall: Call<[Path]> = bind('int chdir(const char *path)');
const pivotRootCall: Call<[Path, Path]> = bind('int pivot_root(const char *newRoot, const char *putOld)');
const fchdirCall: Call<[number]> = bind('int fchdir(int fd)');
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
