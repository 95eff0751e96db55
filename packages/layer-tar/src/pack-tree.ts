import type { BigIntStats } from 'node:fs';
import { closeSync, constants, lstatSync, openSync, readSync, readlinkSync } from 'node:fs';
import { getXattr, type IdPair, listXattrs, splitDevice } from '@flotilla/sys';
import { fsPath } from './byte-paths.js';
import { withRootOf } from './file-capabilities.js';
import { isOpaque, isWhiteout, mergedChild, mergedNames, present } from './merged-directory.js';
import type { MergedDirectory } from './merged-directory.js';
import type { TarEntryType } from './tar-entry.js';
import type { TarHeader, TarWriter } from './tar-writer.js';

export interface PackOptions {
  /**
   * `overlay`: the tree is an overlay's upper directory; its device 0:0 becomes `.wh.NAME` and an opaque directory
   * gets a `.wh..wh..opq`. `literal`: everything as it is.
   */
  whiteouts: 'overlay' | 'literal';
  /** Directories below `root`, topmost first: packed is what an overlay of them shows. `whiteouts` is not asked then. */
  lower?: readonly string[];
  /**
   * Name of the root itself in the archive; `/` makes every name start with a slash. Without it (or empty) only what is
   * below is packed, under its own names.
   */
  name?: string;
  /** Decides by the path below the root (latin1, no leading `/`): false leaves it and what is below out. */
  include?: (path: string) => boolean;
  /** Whom the archive names for an owner that the file system shows. */
  ownerOf?: (shown: IdPair) => IdPair;
  /** Called between members; throw to stop. */
  onEntry?: () => void;
}

/**
 * Writes the tree at `root` (latin1; a file or a directory) into an archive, without the closing blocks.
 *
 * Directories come before what they hold, names sorted by bytes. Hard links within the tree stay links. Sockets and
 * files that vanish meanwhile are left out; a file that shrinks meanwhile is filled up with zeros. Attributes of overlay
 * and SELinux labels stay behind. Follows no link, not even at `root`. Blocks: for worker threads.
 */
export function packTree(root: string, writer: TarWriter, options: PackOptions): void {
  new TreePacker(root, writer, options).pack();
}

class TreePacker {
  readonly #root: string;
  readonly #writer: TarWriter;
  readonly #options: PackOptions;
  /** First name of each file with several links. */
  readonly #links = new Map<string, string>();

  constructor(root: string, writer: TarWriter, options: PackOptions) {
    this.#root = root;
    this.#writer = writer;
    this.#options = options;
  }

  pack(): void {
    const stats = lstatSync(fsPath(this.#root), { bigint: true });
    const name = this.#options.name ?? '';
    if (name !== '') this.#member(this.#root, name, stats);
    if (!stats.isDirectory()) return;
    this.#children([this.#root, ...(this.#options.lower ?? [])], name === '' ? '' : directoryName(name));
  }

  /** The content of the directory, which is called `prefix` in the archive. */
  #children(root: MergedDirectory, prefix: string): void {
    // An explicit stack: a tree may be as deep as its maker liked.
    const pending = [{ below: '', prefix, names: mergedNames(root), next: 0 }];
    for (let level = pending.at(-1); level !== undefined; level = pending.at(-1)) {
      const entry = level.names[level.next++];
      if (entry === undefined) {
        pending.pop();
        continue;
      }
      const [base, holders] = entry;
      const path = level.below + base;
      if (this.#options.include?.(path) === false) continue;
      const child = this.#find(holders, base);
      if (child === undefined) continue;
      this.#options.onEntry?.();
      this.#member(child.full, level.prefix + base, child.stats);
      if (!child.stats.isDirectory()) continue;
      pending.push({
        below: `${path}/`,
        prefix: `${level.prefix}${base}/`,
        names: mergedNames(child.directory),
        next: 0,
      });
    }
  }

  #find(
    holders: MergedDirectory,
    base: string,
  ): { full: string; stats: BigIntStats; directory: MergedDirectory } | undefined {
    if (this.#options.lower !== undefined) return mergedChild(holders, base);
    const full = `${holders[0] ?? ''}/${base}`;
    const stats = present(() => lstatSync(fsPath(full), { bigint: true }));
    return stats === undefined ? undefined : { full, stats, directory: [full] };
  }

  #member(full: string, name: string, stats: BigIntStats): void {
    const type = typeOf(stats);
    if (type === undefined) return;
    const overlay = this.#options.whiteouts === 'overlay' && this.#options.lower === undefined;
    const shown = { uid: Number(stats.uid), gid: Number(stats.gid) };
    const header: TarHeader = {
      name: type === 'directory' ? directoryName(name) : name,
      type,
      mode: Number(stats.mode) & 0o7777,
      ...(this.#options.ownerOf?.(shown) ?? shown),
      mtime: { seconds: Number(floorDivide(stats.mtimeNs, 1_000_000_000n)), nanoseconds: 0 },
    };
    if (overlay && isWhiteout(stats)) {
      const at = name.lastIndexOf('/') + 1;
      this.#writer.entry({ ...header, type: 'file', mode: 0, name: `${name.slice(0, at)}.wh.${name.slice(at)}` });
      return;
    }
    if (type !== 'directory' && stats.nlink > 1n) {
      const key = `${stats.dev}:${stats.ino}`;
      const first = this.#links.get(key);
      if (first !== undefined) {
        this.#writer.entry({
          ...header,
          type: 'hardlink',
          linkname: first,
          xattrs: attributesOf(full, this.#options.ownerOf),
        });
        return;
      }
      this.#links.set(key, name);
    }
    header.xattrs = attributesOf(full, this.#options.ownerOf);
    if (type === 'char' || type === 'block') {
      const { major, minor } = splitDevice(stats.rdev);
      header.devmajor = major;
      header.devminor = minor;
    } else if (type === 'symlink') {
      const target = present(() => readlinkSync(fsPath(full), 'latin1'));
      if (target === undefined) return;
      header.linkname = target;
    }
    if (type === 'file') this.#file(full, header, Number(stats.size));
    else this.#writer.entry(header);
    if (overlay && type === 'directory' && isOpaque(full)) {
      this.#writer.entry({ ...header, type: 'file', mode: 0, xattrs: [], name: `${header.name}.wh..wh..opq` });
    }
  }

  #file(full: string, header: TarHeader, size: number): void {
    // O_NONBLOCK: should the path have become a FIFO meanwhile, do not wait for its writer.
    const flags = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;
    const fd = present(() => openSync(fsPath(full), flags));
    if (fd === undefined) return;
    try {
      this.#writer.entry({ ...header, size });
      this.#writer.dataFrom((buffer, offset, length) => readSync(fd, buffer, offset, length, null));
    } finally {
      closeSync(fd);
    }
  }
}

const directoryName = (name: string): string => (name === '/' ? name : `${name}/`);

function attributesOf(full: string, ownerOf: PackOptions['ownerOf']): [string, string][] {
  const path = fsPath(full);
  const attributes: [string, string][] = [];
  for (const name of present(() => listXattrs(path)) ?? []) {
    if (name.startsWith('trusted.overlay.') || name === 'security.selinux') continue;
    const value = present(() => getXattr(path, name));
    if (value === undefined) continue;
    const isMapped = ownerOf !== undefined && name === 'security.capability';
    const shown = isMapped ? withRootOf(value, (uid) => ownerOf({ uid, gid: 0 }).uid) : value;
    attributes.push([name, shown.toString('latin1')]);
  }
  return attributes;
}

/** Undefined for sockets, which no archive can hold. */
function typeOf(stats: BigIntStats): TarEntryType | undefined {
  if (stats.isFile()) return 'file';
  if (stats.isDirectory()) return 'directory';
  if (stats.isSymbolicLink()) return 'symlink';
  if (stats.isCharacterDevice()) return 'char';
  if (stats.isBlockDevice()) return 'block';
  return stats.isFIFO() ? 'fifo' : undefined;
}

function floorDivide(value: bigint, divisor: bigint): bigint {
  const quotient = value / divisor;
  return value % divisor < 0n ? quotient - 1n : quotient;
}
