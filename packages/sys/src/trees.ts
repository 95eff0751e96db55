import { closeSync, constants, openSync } from 'node:fs';
import { MS_PRIVATE, O_CLOEXEC, O_PATH } from './constants.js';
import { type Call, bindSyscall, checkResult } from './libc.js';
import { hasCode } from './sys-error.js';

// The numbers are the same on every architecture.
const openat2: Call<[number, string, Uint8Array, number]> = bindSyscall(437, [
  'int',
  'const char *',
  'const void *',
  'size_t',
]);
const openTree: Call<[number, string, number]> = bindSyscall(428, ['int', 'const char *', 'unsigned int']);
const moveMount: Call<[number, string, number, string, number]> = bindSyscall(429, [
  'int',
  'const char *',
  'int',
  'const char *',
  'unsigned int',
]);
const mountSetattr: Call<[number, string, number, Uint8Array, number]> = bindSyscall(442, [
  'int',
  'const char *',
  'unsigned int',
  'const void *',
  'size_t',
]);

const RESOLVE_NO_MAGICLINKS = 0x02;
const RESOLVE_BENEATH = 0x08;
const OPEN_TREE_CLONE = 1;
const MOUNT_ATTR_IDMAP = 0x100000;
const AT_EMPTY_PATH = 0x1000;
const AT_RECURSIVE = 0x8000;
const AT_FDCWD = -100;
const MOVE_MOUNT_F_EMPTY_PATH = 4;
/** A lookup that a rename disturbed is done again by the caller. */
const lookups = 16;

/**
 * Opens `path` below the directory `base` as a mere place (O_PATH). Symbolic links and `..` are followed as long as they stay below, whatever is
 * renamed meanwhile. The caller closes it.
 *
 * @throws SysError EXDEV when the path leads out of `base`, ENOENT and so on
 */
export function openBeneath(base: string, path: string): number {
  const what = `open ${path} below ${base}`;
  const root = openSync(base, O_PATH | O_CLOEXEC | constants.O_DIRECTORY);
  try {
    // struct open_how: flags, mode, resolve.
    const how = new Uint8Array(new BigUint64Array([BigInt(O_PATH | O_CLOEXEC), 0n, resolveFlags]).buffer);
    for (let left = lookups; ; left--) {
      try {
        return checkResult(openat2(root, path, how, how.length), what);
      } catch (error) {
        if (left === 0 || !hasCode(error, 'EAGAIN')) throw error;
      }
    }
  } finally {
    closeSync(root);
  }
}

const resolveFlags = BigInt(RESOLVE_NO_MAGICLINKS | RESOLVE_BENEATH);

export interface AttachOptions {
  /** A user namespace whose ids the files are shown with: what 0 owns, its root owns. What is mounted below keeps its ids. */
  idMap?: number;
}

/**
 * Shows what is open as `fd`, with the mounts below it, at `target`, which must exist and be of the same kind. The copy is private from the start: it
 * neither follows nor leads the mounts that it shows.
 *
 * @throws SysError ENOSYS before Linux 5.12; EINVAL for a file system that cannot show other ids
 */
export function attachTree(fd: number, target: string, { idMap }: AttachOptions = {}): void {
  const what = `mount on ${target}`;
  const tree = checkResult(openTree(fd, '', OPEN_TREE_CLONE | O_CLOEXEC | AT_EMPTY_PATH | AT_RECURSIVE), what);
  try {
    setAttributes(tree, AT_RECURSIVE, { propagation: MS_PRIVATE }, what);
    if (idMap !== undefined)
      setAttributes(tree, 0, { set: MOUNT_ATTR_IDMAP, userns: idMap }, `${what} with mapped ids`);
    attachClone(tree, target);
  } finally {
    closeSync(tree);
  }
}

function setAttributes(
  tree: number,
  depth: number,
  { set = 0, propagation = 0, userns = 0 }: { set?: number; propagation?: number; userns?: number },
  what: string,
): void {
  // struct mount_attr: attr_set, attr_clr, propagation, userns_fd.
  const attributes = new Uint8Array(new BigUint64Array([BigInt(set), 0n, BigInt(propagation), BigInt(userns)]).buffer);
  checkResult(mountSetattr(tree, '', AT_EMPTY_PATH | depth, attributes, attributes.length), what);
}

/** A copy of the mount that is open as `fd`, without those below it and not attached anywhere; it goes with its descriptor, which the caller closes. */
export function cloneMount(fd: number): number {
  return checkResult(openTree(fd, '', OPEN_TREE_CLONE | O_CLOEXEC | AT_EMPTY_PATH), 'copy a mount');
}

/** Attaches what `cloneMount` gave, also in another mount namespace than it was made in. */
export function attachClone(clone: number, target: string): void {
  checkResult(moveMount(clone, '', AT_FDCWD, target, MOVE_MOUNT_F_EMPTY_PATH), `mount on ${target}`);
}
