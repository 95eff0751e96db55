import { constants } from 'node:os';
import type { Call, KernelPath } from './libc.js';
import { bind, cPath, lastErrno, showPath } from './libc.js';
import { SysError } from './sys-error.js';

type Path = string | Buffer;
const lsetxattr: Call<[Path, Path, Uint8Array, number, number]> = bind(
  'int lsetxattr(const char *path, const char *name, const uint8_t *value, size_t size, int flags)',
);
const lgetxattr: Call<[Path, Path, Uint8Array | null, number]> = bind(
  'int64_t lgetxattr(const char *path, const char *name, _Out_ uint8_t *value, size_t size)',
);
const llistxattr: Call<[Path, Uint8Array | null, number]> = bind(
  'int64_t llistxattr(const char *path, _Out_ uint8_t *list, size_t size)',
);

/** The kernel's own limits: XATTR_SIZE_MAX and XATTR_LIST_MAX. */
const maxBytes = 65536;
let scratch: Buffer | undefined;

/** Attributes of `path` itself: none of these calls follows a symbolic link. Names are latin1 strings. */
export function setXattr(path: KernelPath, name: string, value: Uint8Array): void {
  const result = lsetxattr(cPath(path), cPath(Buffer.from(name, 'latin1')), value, value.length, 0);
  if (result < 0) throw new SysError(`set attribute ${name} of ${showPath(path)}`, lastErrno());
}

/** The value, or undefined when there is none by that name (also on a file system without attributes). */
export function getXattr(path: KernelPath, name: string): Buffer | undefined {
  scratch ??= Buffer.alloc(maxBytes);
  const length = lgetxattr(cPath(path), cPath(Buffer.from(name, 'latin1')), scratch, scratch.length);
  if (length >= 0) return Buffer.from(scratch.subarray(0, length));
  const errno = lastErrno();
  if (errno === constants.errno.ENODATA || errno === constants.errno.EOPNOTSUPP) return undefined;
  throw new SysError(`get attribute ${name} of ${showPath(path)}`, errno);
}

export function listXattrs(path: KernelPath): string[] {
  scratch ??= Buffer.alloc(maxBytes);
  const length = llistxattr(cPath(path), scratch, scratch.length);
  if (length === 0) return [];
  if (length > 0) return scratch.toString('latin1', 0, length - 1).split('\0');
  const errno = lastErrno();
  if (errno === constants.errno.EOPNOTSUPP) return [];
  throw new SysError(`list attributes of ${showPath(path)}`, errno);
}
