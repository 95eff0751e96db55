import type { BigIntStats } from 'node:fs';
import { chmodSync, closeSync, constants, mkdirSync, openSync, realpathSync, statSync } from 'node:fs';
import { dirname } from 'node:path';
import { unavailable } from '@flotilla/errors';
import {
  attachClone,
  CLONE_FS,
  CLONE_NEWNS,
  MNT_DETACH,
  MS_BIND,
  MS_RDONLY,
  MS_REC,
  MS_REMOUNT,
  MS_SLAVE,
  bindMount,
  chdir,
  chroot,
  cloneMount,
  fchdir,
  hasCode,
  mount,
  openBeneath,
  pivotRoot,
  readMounts,
  setns,
  umask,
  umount,
  umountAll,
  unshare,
} from '@flotilla/sys';
import { asRootOf } from '../rootfs/id-map.js';
import { makeDockerEnv } from '../rootfs/look-inside.js';
import { mountRootfs } from '../rootfs/mount-rootfs.js';
import { ThreadRoot } from '../rootfs/thread-root.js';
import type { ContainerView, RunningView, StoppedView, ViewMount } from './archive-jobs.js';

/** What the kernel and the runtime mount in every container; dockerd's `cp` sees none of it. */
const kernelDirectories = ['/proc', '/sys', '/dev'];
/** Wherever they are: their links lead out of every root (proc), their files are none that could be copied. */
const kernelFileSystems = ['proc', 'sysfs', 'cgroup', 'cgroup2', 'devpts', 'mqueue'];

/**
 * A thread that can look at a container as if that were the machine: in a mount namespace of its own, whose root is the
 * container's and where nothing else exists. What it mounts ends with the thread, or with the process, however that ends.
 *
 * While inside, only synchronous calls see the container: libuv's pool threads stay outside.
 */
export class ViewThread {
  readonly #hostNamespace: number;
  readonly #hostRoot: number;

  constructor() {
    unshare(CLONE_FS);
    umask(0);
    this.#hostNamespace = openSync('/proc/thread-self/ns/mnt', constants.O_RDONLY);
    this.#hostRoot = openSync('/', constants.O_RDONLY | constants.O_DIRECTORY);
  }

  /** @throws EngineError `unavailable` when a container that ran has ended. */
  within<T>(view: ContainerView, fn: () => T): T {
    try {
      if (view.kind === 'running') enterRunning(view);
      else enterStopped(view);
      return asRootOf(view.idMap, fn);
    } finally {
      setns(this.#hostNamespace, CLONE_NEWNS);
      fchdir(this.#hostRoot);
      chroot('.');
    }
  }
}

const hasEnded = (cause?: unknown): Error => unavailable('the container has just ended', { cause });

function enterRunning({ pid, rootfs, destinations, idMap }: RunningView): void {
  let namespace: number;
  let hidden: string[];
  let expected: BigIntStats;
  using covers = new Covers();
  try {
    namespace = openSync(`/proc/${pid}/ns/mnt`, constants.O_RDONLY);
    hidden = hiddenMounts(pid, destinations);
    expected = statSync(rootfs, { bigint: true });
  } catch (error) {
    throw hasCode(error, 'ENOENT', 'ESRCH', 'EINVAL') ? hasEnded(error) : error;
  }
  try {
    if (idMap !== undefined) covers.open(rootfs, hidden);
    setns(namespace, CLONE_NEWNS);
  } finally {
    closeSync(namespace);
  }
  // A copy of the container's: what is taken off here stays where it is there.
  unshare(CLONE_NEWNS);
  mount(null, '/', null, MS_SLAVE | MS_REC);
  // The process may have ended and its number may be another's by now.
  const root = statSync('/', { bigint: true });
  if (root.dev !== expected.dev || root.ino !== expected.ino) throw hasEnded();
  if (idMap === undefined) hidden.forEach(umountAll);
  else covers.lay();
}

/**
 * What is laid over mounts that must not be seen, where they cannot be taken off: those of a user namespace come apart only inside of it, lest what lies
 * below them comes to light. The covers are just that, as it is seen from the outside, where the root file system is mounted without them.
 */
class Covers implements Disposable {
  readonly #opened: { target: string; cover: number | undefined }[] = [];

  open(rootfs: string, targets: readonly string[]): void {
    const outermost = targets.filter((path) => !targets.some((other) => path.startsWith(`${other}/`)));
    for (const target of new Set(outermost)) {
      this.#opened.push({ target, cover: cloneBelow(rootfs, target.slice(1)) });
    }
  }

  lay(): void {
    for (const { target, cover } of this.#opened) {
      if (cover !== undefined) attachClone(cover, target);
      // A program inside has mounted it, on a mount of its own: nothing lies below.
      else mount('tmpfs', target, 'tmpfs', MS_RDONLY, 'mode=0755');
    }
  }

  [Symbol.dispose](): void {
    for (const { cover } of this.#opened) if (cover !== undefined) closeSync(cover);
  }
}

function cloneBelow(base: string, path: string): number | undefined {
  let fd: number;
  try {
    fd = openBeneath(base, path);
  } catch (error) {
    if (hasCode(error, 'ENOENT', 'ENOTDIR', 'EXDEV')) return undefined;
    throw error;
  }
  try {
    return cloneMount(fd);
  } finally {
    closeSync(fd);
  }
}

function hiddenMounts(pid: number, destinations: readonly string[]): string[] {
  const isAskedFor = (path: string): boolean =>
    destinations.some((destination) => path === destination || path.startsWith(`${destination}/`));
  return readMounts(pid)
    .filter(({ target, fstype }) => {
      if (kernelFileSystems.includes(fstype)) return true;
      return kernelDirectories.some((path) => target === path || target.startsWith(`${path}/`)) && !isAskedFor(target);
    })
    .map(({ target }) => target);
}

function enterStopped({ layers, target, readOnly, mounts, idMap }: StoppedView): void {
  unshare(CLONE_NEWNS);
  mount(null, '/', null, MS_SLAVE | MS_REC);
  mountRootfs(layers, target, idMap);
  asRootOf(idMap, () => {
    using root = new ThreadRoot();
    root.within(target, undefined, makeDockerEnv);
    for (const shown of mounts) placeMount(root, target, shown);
  });
  if (readOnly) mount(null, target, null, MS_BIND | MS_REMOUNT | MS_RDONLY);
  chdir(target);
  try {
    pivotRoot('.', '.');
    umount('.', MNT_DETACH);
  } catch (error) {
    // A machine that runs from its initial ramdisk cannot leave that.
    if (!hasCode(error, 'EINVAL')) throw error;
    chroot('.');
  }
  chdir('/');
}

function placeMount(root: ThreadRoot, target: string, { source, destination, readOnly, recursive }: ViewMount): void {
  const isDirectory = statSync(source).isDirectory();
  const real = root.within(target, undefined, () => makeMountPoint(destination, isDirectory));
  bindMount(source, target + real, { readOnly, recursive });
}

/** Make what is missing, as dockerd does; gives the path without links. */
function makeMountPoint(destination: string, isDirectory: boolean): string {
  if (isDirectory) mkdirSync(destination, { recursive: true, mode: 0o755 });
  else {
    mkdirSync(dirname(destination), { recursive: true, mode: 0o755 });
    const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL;
    try {
      closeSync(openSync(destination, flags, 0o755));
      chmodSync(destination, 0o755);
    } catch (error) {
      if (!hasCode(error, 'EEXIST')) throw error;
    }
  }
  return realpathSync.native(destination);
}
