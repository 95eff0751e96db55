import type { Stats } from 'node:fs';
import {
  chmodSync,
  closeSync,
  constants,
  fchmodSync,
  fchownSync,
  ftruncateSync,
  lchownSync,
  linkSync,
  lstatSync,
  mkdirSync,
  openSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  writeSync,
} from 'node:fs';
import { EngineError, dataLoss, internal, invalidArgument } from '@flotilla/errors';
import { O_CLOEXEC, SysError, futimens, hasCode, makeDevice, mknod, setXattr, utimensat } from '@flotilla/sys';
import type { FileTime, IdPair } from '@flotilla/sys';
import { cleanName, fsPath } from './byte-paths.js';
import { withRootOf } from './file-capabilities.js';
import type { TarEntry, TarSink } from './tar-entry.js';

const createFlags = constants.O_CREAT | constants.O_EXCL | constants.O_WRONLY | constants.O_NOFOLLOW | O_CLOEXEC;
const maxPathBytes = 4096;
const maxLinks = 40;

export interface ApplyOptions {
  /** Directory to fill (latin1), `/` in a chroot. */
  root: string;
  /** `overlay`: `.wh.NAME` becomes the overlay's device 0:0 and `.wh..wh..opq` its attribute. `literal`: plain files. */
  whiteouts: 'overlay' | 'literal';
  /** Give everything to this owner, whatever the archive says. */
  owner?: IdPair;
  /** What the file system is told for an owner of the archive, or for `owner`. */
  ownerOf?: (named: IdPair) => IdPair;
  /** Refuse to put a file in place of a directory, or a directory in place of a file. */
  noOverwriteDirNonDir?: boolean;
  /** The thread's umask is 0: saves a call per file. */
  umaskIsZero?: boolean;
}

/**
 * Puts the members of an archive into a directory, as Docker does for layers and `docker cp`.
 *
 * Names are taken from `root`, and links on the way are followed inside it: nothing outside is touched, whatever the
 * archive holds. Run it in a thread that is chrooted to `root` all the same, with umask 0. Later members replace earlier
 * ones. `finish` sets the times of directories, so it must be called; after an error call `abort`. All calls block.
 *
 * @throws EngineError naming the member: `dataLoss` when the archive is at fault, `internal` when the disk is
 */
export class TarApplier implements TarSink {
  /** Sum of the sizes of files and of the targets of symbolic links so far: what Docker calls the size of a layer. */
  fileBytes = 0;
  readonly #options: ApplyOptions;
  /** `root` with a closing slash. */
  readonly #base: string;
  /** Directories below the root by the path used: where they really are. */
  readonly #directories = new Map<string, string>([['', '']]);
  readonly #times = new Map<string, { time: FileTime; ino: number }>();
  /** Real paths that this archive has made: a whiteout does not apply to them. */
  readonly #made = new Set<string>();
  /** Files in a set-gid directory start with its group: then every owner has to be set. */
  #setsEveryOwner: boolean;
  #fd = -1;
  #file: TarEntry | undefined;
  #filePath = '';
  #end = 0;

  constructor(options: ApplyOptions) {
    this.#options = options;
    this.#base = options.root.endsWith('/') ? options.root : `${options.root}/`;
    this.#setsEveryOwner = options.whiteouts === 'literal' || process.geteuid?.() !== 0;
  }

  entry(entry: TarEntry): void {
    this.#guard(entry, () => this.#apply(entry));
  }

  data(bytes: Buffer, offset: number): void {
    const file = this.#file;
    if (file === undefined) return;
    this.#guard(file, () => {
      let from = 0;
      while (from < bytes.length) {
        // Data in a row needs no position; a sparse file leaves holes.
        from += writeSync(
          this.#fd,
          bytes,
          from,
          bytes.length - from,
          offset + from === this.#end ? null : offset + from,
        );
        this.#end = file.sparse === undefined ? offset + from : -1;
      }
    });
  }

  endEntry(): void {
    const file = this.#file;
    if (file === undefined) return;
    this.#guard(file, () => {
      const fd = this.#fd;
      if (file.sparse !== undefined) ftruncateSync(fd, file.size);
      const { uid, gid } = this.#ownerOf(file);
      // Order matters: a change of owner clears set-uid bits and capabilities.
      if (this.#setsEveryOwner || uid !== 0 || gid !== 0) fchownSync(fd, uid, gid);
      if (file.xattrs.length > 0) this.#setAttributes(this.#filePath, file);
      if (this.#options.umaskIsZero !== true || (file.mode & 0o7000) !== 0) fchmodSync(fd, file.mode);
      futimens(fd, file.mtime);
      this.#closeFile();
      this.fileBytes += file.size;
    });
  }

  /** Sets the times of the directories; the tree is complete. */
  finish(): void {
    for (const [path, { time, ino }] of [...this.#times].reverse()) {
      const stats = lstatIfPresent(path);
      if (stats?.isDirectory() === true && stats.ino === ino) utimensat(fsPath(path), time);
    }
  }

  /** Closes what is open; the tree stays half-made. */
  abort(): void {
    if (this.#fd >= 0) this.#closeFile();
  }

  #closeFile(): void {
    const fd = this.#fd;
    this.#fd = -1;
    this.#file = undefined;
    closeSync(fd);
  }

  #apply(entry: TarEntry): void {
    const path = cleanName(entry.name);
    if (path.length >= maxPathBytes) throw dataLoss(`${shown(entry.name.slice(0, 60))}...: file name too long`);
    if (path === '') {
      if (entry.type === 'directory') this.#directoryMetadata(this.#base, entry);
      return;
    }
    const slash = path.lastIndexOf('/');
    const parent = slash < 0 ? '' : this.#resolve(path.slice(0, slash));
    const name = path.slice(slash + 1);
    const below = parent === '' ? name : `${parent}/${name}`;
    if (this.#options.whiteouts === 'overlay' && name.startsWith('.wh.')) this.#whiteout(parent, name, entry);
    else this.#create(below, entry);
  }

  /** Where a directory path really is: follows links inside the root and makes what is missing. */
  #resolve(path: string): string {
    const known = this.#directories.get(path);
    if (known !== undefined) return known;
    const pending = path.split('/').reverse();
    let at = '';
    let links = 0;
    for (let part = pending.pop(); part !== undefined; part = pending.pop()) {
      if (part === '' || part === '.') continue;
      if (part === '..') {
        at = at.slice(0, Math.max(at.lastIndexOf('/'), 0));
        continue;
      }
      const next = at === '' ? part : `${at}/${part}`;
      if (this.#directories.get(next) === next) {
        at = next;
        continue;
      }
      const full = this.#base + next;
      const stats = lstatIfPresent(full);
      if (stats === undefined) {
        mkdirSync(fsPath(full), 0o755);
        if (this.#options.owner !== undefined) {
          const { uid, gid } = this.#ownerOf(this.#options.owner);
          lchownSync(fsPath(full), uid, gid);
        }
      } else if (stats.isSymbolicLink()) {
        if (++links > maxLinks) throw dataLoss(`${shown(path)}: too many levels of symbolic links`);
        const target = readlinkSync(fsPath(full), 'latin1');
        if (target.startsWith('/')) at = '';
        pending.push(...target.split('/').reverse());
        continue;
      } else if (!stats.isDirectory()) throw dataLoss(`${shown(path)}: not a directory`);
      this.#directories.set(next, next);
      at = next;
    }
    this.#directories.set(path, at);
    return at;
  }

  #whiteout(parent: string, name: string, entry: TarEntry): void {
    const directory = this.#base + parent;
    if (name === '.wh..wh..opq') {
      setXattr(fsPath(directory), 'trusted.overlay.opaque', Buffer.from('y'));
      return;
    }
    if (name.startsWith('.wh..wh.')) return; // bookkeeping of aufs
    const target = name.slice('.wh.'.length);
    if (target === '' || target === '.' || target === '..') throw dataLoss(`invalid whiteout ${shown(entry.name)}`);
    const below = parent === '' ? target : `${parent}/${target}`;
    if (this.#made.has(below)) return;
    const make = () => mknod(fsPath(this.#base + below), constants.S_IFCHR, 0n);
    this.#replacing(below, make);
  }

  #create(below: string, entry: TarEntry): void {
    const full = this.#base + below;
    const path = fsPath(full);
    if (this.#options.noOverwriteDirNonDir === true) refuseOtherKind(full, entry);
    switch (entry.type) {
      case 'file':
        this.#replacing(below, () => {
          this.#fd = openSync(path, createFlags, entry.mode & 0o777);
        });
        this.#file = entry;
        this.#filePath = full;
        this.#end = 0;
        break;
      case 'directory':
        this.#makeDirectory(below, path, entry);
        this.#directoryMetadata(full, entry);
        break;
      case 'symlink':
        this.#replacing(below, () => symlinkSync(fsPath(entry.linkname), path));
        this.#metadata(full, entry);
        this.fileBytes += entry.linkname.length;
        break;
      case 'hardlink':
        this.#hardlink(below, full, entry);
        break;
      case 'char':
      case 'block':
      case 'fifo': {
        const device = entry.type === 'fifo' ? 0n : makeDevice(entry.devmajor, entry.devminor);
        this.#replacing(below, () => mknod(path, nodeTypes[entry.type as 'fifo'] | (entry.mode & 0o777), device));
        this.#metadata(full, entry);
      }
    }
    this.#made.add(below);
  }

  #makeDirectory(below: string, path: string | Buffer, entry: TarEntry): void {
    try {
      mkdirSync(path, entry.mode & 0o777);
    } catch (error) {
      if (!hasCode(error, 'EEXIST')) throw error;
      if (!lstatSync(path).isDirectory()) {
        this.#remove(below);
        mkdirSync(path, entry.mode & 0o777);
      }
    }
    this.#directories.set(below, below);
  }

  #hardlink(below: string, full: string, entry: TarEntry): void {
    const target = cleanName(entry.linkname);
    const slash = target.lastIndexOf('/');
    const parent = slash < 0 ? '' : this.#resolve(target.slice(0, slash));
    const name = target.slice(slash + 1);
    if (name === '') throw dataLoss(`invalid hardlink ${shown(entry.name)} -> ${shown(entry.linkname)}`);
    const source = parent === '' ? name : `${parent}/${name}`;
    if (source === below) {
      if (lstatIfPresent(full) === undefined) throw dataLoss(`invalid hardlink ${shown(entry.name)} to itself`);
      return;
    }
    this.#replacing(below, () => linkSync(fsPath(this.#base + source), fsPath(full)));
    // The header repeats what the first name has. Setting an owner again would clear capabilities, so only if it differs.
    const stats = lstatSync(fsPath(full));
    const { uid, gid } = this.#ownerOf(entry);
    const isLink = stats.isSymbolicLink();
    if (stats.uid !== uid || stats.gid !== gid) this.#metadata(full, entry, isLink);
    else if (!isLink && (stats.mode & 0o7777) !== entry.mode) chmodSync(fsPath(full), entry.mode);
  }

  #directoryMetadata(full: string, entry: TarEntry): void {
    if ((entry.mode & 0o2000) !== 0) this.#setsEveryOwner = true;
    const path = fsPath(full);
    const { uid, gid } = this.#ownerOf(entry);
    lchownSync(path, uid, gid);
    this.#setAttributes(full, entry);
    chmodSync(path, entry.mode);
    this.#times.delete(full);
    this.#times.set(full, { time: entry.mtime, ino: lstatSync(path).ino });
  }

  #metadata(full: string, entry: TarEntry, isLink = entry.type === 'symlink'): void {
    const path = fsPath(full);
    const { uid, gid } = this.#ownerOf(entry);
    if (this.#setsEveryOwner || uid !== 0 || gid !== 0 || entry.type === 'hardlink') lchownSync(path, uid, gid);
    this.#setAttributes(full, entry);
    if (!isLink) chmodSync(path, entry.mode);
    utimensat(path, entry.mtime);
  }

  /** Does `make`; where something is in the way, removes it first. */
  #replacing(below: string, make: () => void): void {
    try {
      make();
    } catch (error) {
      if (!hasCode(error, 'EEXIST')) throw error;
      this.#remove(below);
      make();
    }
  }

  #remove(below: string): void {
    rmSync(fsPath(this.#base + below), { recursive: true, force: true });
    this.#made.delete(below);
    this.#directories.clear();
    this.#directories.set('', '');
  }

  /** Attributes that the file system has no room or notion for are left out, as Docker does. */
  #setAttributes(full: string, entry: TarEntry): void {
    if (entry.xattrs.length === 0) return;
    const path = fsPath(full);
    for (const [name, value] of entry.xattrs) {
      if (name.startsWith('trusted.overlay.')) continue;
      try {
        setXattr(path, name, this.#attribute(name, Buffer.from(value, 'latin1')));
      } catch (error) {
        const isIgnored =
          hasCode(error, 'ENOTSUP', 'EOPNOTSUPP') || (name.startsWith('user.') && hasCode(error, 'EPERM'));
        if (!isIgnored) throw error;
      }
    }
  }

  #attribute(name: string, value: Buffer): Buffer {
    const { ownerOf } = this.#options;
    if (ownerOf === undefined || name !== 'security.capability') return value;
    return withRootOf(value, (uid) => ownerOf({ uid, gid: 0 }).uid);
  }

  #ownerOf(entry: IdPair): IdPair {
    const named = this.#options.owner ?? entry;
    return this.#options.ownerOf?.(named) ?? named;
  }

  /** Runs `action`; what it throws becomes one sentence about the member. */
  #guard(entry: TarEntry, action: () => void): void {
    try {
      action();
    } catch (error) {
      throw applyError(entry, error);
    }
  }
}

const nodeTypes = { char: constants.S_IFCHR, block: constants.S_IFBLK, fifo: constants.S_IFIFO };

function refuseOtherKind(full: string, entry: TarEntry): void {
  const isDirectory = lstatIfPresent(full)?.isDirectory();
  if (isDirectory === undefined || isDirectory === (entry.type === 'directory')) return;
  const [existing, wanted] = isDirectory ? ['directory', 'non-directory'] : ['non-directory', 'directory'];
  throw invalidArgument(`cannot overwrite ${existing} "${shown(full)}" with ${wanted} "${shown(entry.name)}"`);
}

function lstatIfPresent(full: string): Stats | undefined {
  try {
    return lstatSync(fsPath(full), { throwIfNoEntry: false });
  } catch (error) {
    // A directory on the way has been replaced by a file.
    if (hasCode(error, 'ENOTDIR')) return undefined;
    throw error;
  }
}

/** Names of bytes as text for messages; control characters are escaped. */
function shown(name: string): string {
  return JSON.stringify(Buffer.from(name, 'latin1').toString()).slice(1, -1);
}

/** What went wrong with the machine and not with the archive, in the words of the C library. */
const machineErrors: Record<string, string> = {
  ENOSPC: 'no space left on device',
  EDQUOT: 'disk quota exceeded',
  EIO: 'input/output error',
  EROFS: 'read-only file system',
  ENOMEM: 'cannot allocate memory',
  EMFILE: 'too many open files',
  ENFILE: 'too many open files in system',
  EBUSY: 'device or resource busy',
  EPERM: 'operation not permitted',
  EACCES: 'permission denied',
};

function applyError(entry: TarEntry, cause: unknown): EngineError {
  if (cause instanceof EngineError) return cause;
  const name = `/${shown(cleanName(entry.name))}`;
  const code = cause instanceof Error && 'code' in cause ? String(cause.code) : '';
  const machine = machineErrors[code];
  if (machine !== undefined) return internal(`write ${name}: ${machine}`, { cause });
  if (code === 'ENOENT' && entry.type === 'hardlink') {
    return dataLoss(`link ${name}: no such file or directory: /${shown(cleanName(entry.linkname))}`, { cause });
  }
  const isKernelError = cause instanceof SysError || /^E[A-Z0-9]+$/.test(code);
  if (!isKernelError) return internal(`write ${name}: internal error`, { cause });
  return dataLoss(`invalid archive member ${name}: ${code}`, { cause });
}
