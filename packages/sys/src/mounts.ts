import { readFileSync } from 'node:fs';
import {
  MNT_DETACH,
  MS_BIND,
  MS_PRIVATE,
  MS_RDONLY,
  MS_REC,
  MS_REMOUNT,
  MS_SHARED,
  MS_SLAVE,
  MS_UNBINDABLE,
  UMOUNT_NOFOLLOW,
} from './constants.js';
import type { Call, KernelPath } from './libc.js';
import { bind, cPath, checkResult, showPath } from './libc.js';
import { hasCode } from './sys-error.js';

type Path = string | Buffer;
const mountCall: Call<[Path | null, Path, string | null, number, string | null]> = bind(
  'int mount(const char *source, const char *target, const char *type, unsigned long flags, const char *data)',
);
const umountCall: Call<[Path, number]> = bind('int umount2(const char *target, int flags)');

/** mount(2). `data` is cut by the kernel at 4096 bytes: see `mountOverlay`. */
export function mount(
  source: KernelPath | null,
  target: KernelPath,
  fstype: string | null,
  flags = 0,
  data: string | null = null,
): void {
  const from = source === null ? null : cPath(source);
  const what = `mount ${fstype ?? (source === null ? '' : showPath(source))} on ${showPath(target)}`;
  checkResult(mountCall(from, cPath(target), fstype, flags, data), what);
}

/** umount2(2); never follows a symbolic link at the end of `target`. */
export function umount(target: KernelPath, flags = 0): void {
  checkResult(umountCall(cPath(target), flags | UMOUNT_NOFOLLOW), `unmount ${showPath(target)}`);
}

/**
 * Takes everything mounted at `target` off, detaching what is busy. Nothing mounted there, or no such path, is fine.
 */
export function umountAll(target: KernelPath): void {
  for (;;) {
    try {
      umount(target, MNT_DETACH);
    } catch (error) {
      if (hasCode(error, 'EINVAL', 'ENOENT')) return;
      throw error;
    }
  }
}

export interface BindMountOptions {
  readOnly?: boolean;
  /** With the mounts below `source`; `readOnly` then applies to the top one only. */
  recursive?: boolean;
}

/** Shows `source` (a directory or a file) at `target`, which must exist. */
export function bindMount(source: KernelPath, target: KernelPath, options: BindMountOptions = {}): void {
  mount(source, target, null, MS_BIND | (options.recursive === true ? MS_REC : 0));
  if (options.readOnly !== true) return;
  try {
    mount(null, target, null, MS_BIND | MS_REMOUNT | MS_RDONLY);
  } catch (error) {
    umount(target, MNT_DETACH);
    throw error;
  }
}

export type Propagation =
  'shared' | 'private' | 'slave' | 'unbindable' | 'rshared' | 'rprivate' | 'rslave' | 'runbindable';
const propagationFlags: Record<Propagation, number> = {
  shared: MS_SHARED,
  private: MS_PRIVATE,
  slave: MS_SLAVE,
  unbindable: MS_UNBINDABLE,
  rshared: MS_SHARED | MS_REC,
  rprivate: MS_PRIVATE | MS_REC,
  rslave: MS_SLAVE | MS_REC,
  runbindable: MS_UNBINDABLE | MS_REC,
};

/** Changes how mounts below the mount point `target` propagate. */
export function setPropagation(target: KernelPath, propagation: Propagation): void {
  mount(null, target, null, propagationFlags[propagation]);
}

/** Makes the directory `path` a mount point of its own (bound on itself) that is rshared; does nothing when it is. */
export function makeShared(path: string): void {
  const mounted = readMounts().findLast((entry) => entry.target === path);
  if (mounted === undefined) bindMount(path, path, { recursive: true });
  else if (mounted.optional.some((field) => field.startsWith('shared:'))) return;
  setPropagation(path, 'rshared');
}

/** One line of mountinfo: proc_pid_mountinfo(5). */
export interface MountEntry {
  id: number;
  parentId: number;
  /** `major:minor`. */
  device: string;
  /** The directory of the file system that is shown. */
  root: string;
  target: string;
  /** Options of the mount point. */
  options: string[];
  /** `shared:N`, `master:N`, ... */
  optional: string[];
  fstype: string;
  source: string;
  /** Options of the file system. */
  superOptions: string[];
}

/** The mounts of this process, or of `pid`, in the order in which they were made; a later one hides an earlier. */
export function readMounts(pid: number | 'self' = 'self'): MountEntry[] {
  const text = readFileSync(`/proc/${pid}/mountinfo`, 'utf8');
  return text
    .split('\n')
    .filter((line) => line !== '')
    .map(parseMountLine);
}

export function isMountPoint(path: string): boolean {
  return readMounts().some((entry) => entry.target === path);
}

/** Reads one line of mountinfo; octal escapes in names are undone. */
export function parseMountLine(line: string): MountEntry {
  const fields = line.split(' ');
  const end = fields.indexOf('-', 6);
  const field = (index: number) => unescapeOctal(fields[index] ?? '');
  return {
    id: Number(fields[0]),
    parentId: Number(fields[1]),
    device: field(2),
    root: field(3),
    target: field(4),
    options: field(5).split(','),
    optional: fields.slice(6, end),
    fstype: field(end + 1),
    source: field(end + 2),
    superOptions: field(end + 3).split(','),
  };
}

function unescapeOctal(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 8)));
}
