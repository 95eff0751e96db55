export * from './constants.js';
export { findAppArmorParser } from './apparmor.js';
export { asFileOwner } from './credentials.js';
export { ExchangeFifo, FifoReader, openExchangeFifo, sweepExchangeFifos, writeFifo } from './exchange-fifo.js';
export { futimens, makeDevice, mkfifo, mknod, nextData, splitDevice, syncfs, utimensat } from './files.js';
export type { FileTime } from './files.js';
export { mappedRoot, toContainerId, toHostId } from './id-mappings.js';
export type { IdMappings, IdPair, IdRange } from './id-mappings.js';
export { addressOf, bind, bindSyscall, checkResult, lastErrno, libc } from './libc.js';
export type { CArgument, Call, KernelPath } from './libc.js';
export {
  bindMount,
  isMountPoint,
  makeShared,
  mount,
  parseMountLine,
  readMounts,
  setPropagation,
  umount,
  umountAll,
} from './mounts.js';
export type { BindMountOptions, MountEntry, Propagation } from './mounts.js';
export { NamespaceHolder } from './namespace-holder.js';
export { chdir, chroot, fchdir, inOwnMounts, pivotRoot, setDomainName, setns, umask, unshare } from './namespaces.js';
export { mountOverlay, tryOverlay } from './overlay.js';
export type { OverlayMount } from './overlay.js';
export { POLLIN, POLLOUT, duplicateFd, pipe2, poll, setPipeSize, spliceToPipe } from './pipes.js';
export type { Pipe } from './pipes.js';
export { pathExists } from './path-exists.js';
export { processStartTime } from './processes.js';
export { ProjectQuotas } from './project-quota.js';
export type { FileProject, ProjectUsage, QuotaCalls } from './project-quota.js';
export { spawnSession } from './spawn.js';
export type { SpawnedProgram } from './spawn.js';
export { setSendBuffer } from './sockets.js';
export { SysError, errnoName, hasCode } from './sys-error.js';
export { UnixDatagramSocket } from './unix-datagram.js';
export { attachClone, attachTree, cloneMount, openBeneath } from './trees.js';
export type { AttachOptions } from './trees.js';
export { findBeside, startThreadPool, startWorker } from './worker.js';
export { WorkerPool } from './worker-pool.js';
export { getXattr, listXattrs, setXattr } from './xattr.js';
