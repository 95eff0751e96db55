import { closeSync, constants, openSync, readSync } from 'node:fs';
import { constants as osConstants } from 'node:os';
import { MS_RDONLY, O_CLOEXEC, O_PATH } from './constants.js';
import type { Call } from './libc.js';
import { bindSyscall, lastErrno } from './libc.js';
import { bindMount, mount } from './mounts.js';
import { SysError, hasCode } from './sys-error.js';

// The numbers are the same on every architecture.
const fsopen: Call<[string, number]> = bindSyscall(430, ['const char *', 'uint32_t']);
const fsconfig: Call<[number, number, string | null, string | null, number]> = bindSyscall(431, [
  'int',
  'uint32_t',
  'const char *',
  'const char *',
  'int',
]);
const fsmount: Call<[number, number, number]> = bindSyscall(432, ['int', 'uint32_t', 'uint32_t']);
const moveMount: Call<[number, string, number, string, number]> = bindSyscall(429, [
  'int',
  'const char *',
  'int',
  'const char *',
  'uint32_t',
]);

const FSOPEN_CLOEXEC = 1;
const FSMOUNT_CLOEXEC = 1;
const FSCONFIG_SET_STRING = 1;
const FSCONFIG_CMD_CREATE = 6;
const MOUNT_ATTR_RDONLY = 1;
const MOVE_MOUNT_F_EMPTY_PATH = 4;
const AT_FDCWD = -100;
/** fsconfig(2) takes no longer strings. */
const maxFsconfigBytes = 255;

/**
 * Layers come from outside and are read back by directory: no redirects, no metadata-only copies, no index.
 * (overlay's defaults depend on how the kernel was built.)
 */
const fixedOptions: [string, string][] = [
  ['index', 'off'],
  ['redirect_dir', 'nofollow'],
  ['metacopy', 'off'],
];

export interface OverlayMount {
  /** Absolute directories, topmost first; at least one. */
  lower: string[];
  upper?: string;
  /** Empty directory on the file system of `upper`; needed with it. */
  work?: string;
  target: string;
  readOnly?: boolean;
}

/**
 * Mounts an overlay on `target`, with any number of layers.
 *
 * Uses fsopen(2) with one `lowerdir+` per layer, because mount(2) cuts its options at 4096 bytes and then complains
 * about a directory that does not exist. Kernels before 6.7 know no `lowerdir+`: there mount(2) is called with
 * `/proc/self/fd/N` in place of the paths, which has room for about 200 layers. One layer without `upper` is no
 * overlay for the kernel, and becomes a read-only bind mount.
 *
 * @throws SysError with the kernel's own message where it gives one
 */
export function mountOverlay(overlay: OverlayMount): void {
  const { lower, upper, work, target } = overlay;
  const first = lower[0];
  if (first === undefined) throw new SysError(`mount overlay on ${target}`, osConstants.errno.EINVAL, 'no layers');
  if (upper === undefined && lower.length === 1) {
    bindMount(first, target, { readOnly: true });
    return;
  }
  using names = new ShortNames();
  const options: [string, string][] = lower.map((path) => ['lowerdir+', path]);
  if (upper !== undefined) options.push(['upperdir', upper], ['workdir', work ?? '']);
  try {
    mountByContext(
      target,
      options.map(([key, path]) => [key, Buffer.byteLength(path) > maxFsconfigBytes ? names.shorten(path) : path]),
      overlay.readOnly === true,
    );
  } catch (error) {
    if (!hasCode(error, 'ENOSYS', 'EINVAL')) throw error;
    // The first message is the better one, unless it only said that the interface is missing.
    try {
      mountOverlayByOptions(overlay);
    } catch (second) {
      throw hasCode(error, 'ENOSYS') || (error instanceof Error && error.message.includes('lowerdir+='))
        ? second
        : error;
    }
  }
}

/**
 * Makes the kernel build an overlay of the three directories, which must be empty, and lets go of it: nothing is mounted at any
 * path, so nothing can stay behind. A kernel without fsopen(2) is not asked.
 *
 * @throws SysError why there can be no overlay
 */
export function tryOverlay(lower: string, upper: string, work: string): void {
  const what = `make an overlay on ${upper}`;
  let context: number;
  try {
    context = check(fsopen('overlay', FSOPEN_CLOEXEC), what);
  } catch (error) {
    if (hasCode(error, 'ENOSYS')) return;
    throw error;
  }
  using names = new ShortNames();
  try {
    const directories = [
      ['lowerdir', lower],
      ['upperdir', upper],
      ['workdir', work],
    ] as const;
    for (const [key, path] of directories) {
      check(fsconfig(context, FSCONFIG_SET_STRING, key, names.shorten(path), 0), `${what}: ${key}`, context);
    }
    for (const [key, value] of fixedOptions) {
      check(fsconfig(context, FSCONFIG_SET_STRING, key, value, 0), `${what}: ${key}=${value}`, context);
    }
    check(fsconfig(context, FSCONFIG_CMD_CREATE, null, null, 0), what, context);
    closeSync(check(fsmount(context, FSMOUNT_CLOEXEC, 0), what, context));
  } finally {
    closeSync(context);
  }
}

function mountByContext(target: string, options: [string, string][], readOnly: boolean): void {
  const what = `mount overlay on ${target}`;
  const context = check(fsopen('overlay', FSOPEN_CLOEXEC), what);
  try {
    for (const [key, value] of [['source', 'overlay'] as const, ...options, ...fixedOptions]) {
      check(fsconfig(context, FSCONFIG_SET_STRING, key, value, 0), `${what}: ${key}=${value}`, context);
    }
    check(fsconfig(context, FSCONFIG_CMD_CREATE, null, null, 0), what, context);
    const made = check(fsmount(context, FSMOUNT_CLOEXEC, readOnly ? MOUNT_ATTR_RDONLY : 0), what, context);
    try {
      check(moveMount(made, '', AT_FDCWD, target, MOVE_MOUNT_F_EMPTY_PATH), what);
    } finally {
      closeSync(made);
    }
  } finally {
    closeSync(context);
  }
}

function check(result: number, what: string, context?: number): number {
  if (result >= 0) return result;
  const errno = lastErrno();
  throw new SysError(what, errno, context === undefined ? '' : kernelMessages(context));
}

/** What the kernel wrote into the context, one message per read: `e overlay: ...`. */
function kernelMessages(context: number): string {
  const messages: string[] = [];
  const buffer = Buffer.alloc(1024);
  for (;;) {
    try {
      const length = readSync(context, buffer, 0, buffer.length, null);
      if (length === 0) break;
      messages.push(
        buffer
          .toString('utf8', 0, length)
          .trim()
          .replace(/^[ewi] /, ''),
      );
    } catch {
      break; // ENODATA: no more
    }
  }
  return messages.join('; ');
}

/** The older way, for kernels without fsopen(2) or `lowerdir+`; room for about 200 layers. */
export function mountOverlayByOptions(overlay: OverlayMount): void {
  const { lower, upper, work, target } = overlay;
  using names = new ShortNames();
  const options = [`lowerdir=${lower.map((path) => names.shorten(path)).join(':')}`];
  if (upper !== undefined) options.push(`upperdir=${names.shorten(upper)}`, `workdir=${names.shorten(work ?? '')}`);
  for (const [key, value] of fixedOptions) options.push(`${key}=${value}`);
  mount('overlay', target, 'overlay', overlay.readOnly === true ? MS_RDONLY : 0, options.join(','));
}

/** Short names of directories, as links to descriptors that stay open until disposal. */
class ShortNames implements Disposable {
  readonly #names = new Map<string, { fd: number; name: string }>();

  shorten(path: string): string {
    let known = this.#names.get(path);
    if (known === undefined) {
      const fd = openSync(path, O_PATH | O_CLOEXEC | constants.O_DIRECTORY);
      known = { fd, name: `/proc/self/fd/${fd}` };
      this.#names.set(path, known);
    }
    return known.name;
  }

  [Symbol.dispose](): void {
    for (const { fd } of this.#names.values()) closeSync(fd);
    this.#names.clear();
  }
}
