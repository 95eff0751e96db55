import { createRequire } from 'node:module';
import { constants } from 'node:os';
import type { LibraryHandle } from 'koffi';
import { SysError } from './sys-error.js';

type Koffi = typeof import('koffi');

const requireHere = createRequire(import.meta.url);
let loaded: Koffi | undefined;
let handle: LibraryHandle | undefined;

// Its native code is loaded by whoever really calls C: most of a service's start needs none of it.
const koffi = () => (loaded ??= requireHere('koffi') as Koffi);

/** The C library, loaded on first use. */
export function libc(): LibraryHandle {
  handle ??= koffi().load('libc.so.6');
  return handle;
}

/** What a binding passes to C. */
export type CArgument =
  string | number | bigint | Uint8Array | Int32Array | Uint32Array | BigInt64Array | readonly (string | null)[] | null;

/** A bound function with the arguments that its prototype takes. */
export type Call<A extends readonly CArgument[]> = (...args: A) => number;

/**
 * A C function by its prototype, looked up at the first call. Calls are synchronous and run on the calling thread,
 * which matters for everything that is per thread: namespaces, root directory, umask.
 */
export function bind(prototype: string): Call<CArgument[]> {
  let call: ((...args: CArgument[]) => unknown) | undefined;
  return (...args) => {
    call ??= libc().func(prototype);
    return Number(call(...args));
  };
}

/** As `bind` for `syscall(2)`, of which each use needs its own argument types. */
export function bindSyscall(number: number, types: string[]): Call<CArgument[]> {
  let call: ((...args: CArgument[]) => unknown) | undefined;
  return (...args) => {
    call ??= libc().func('syscall', 'long', ['long', ...types]);
    return Number(call(number, ...args));
  };
}

/** Where a Buffer's bytes lie, for structures that point to them; only as long as the Buffer is kept. More than 64 bytes never move. */
export function addressOf(bytes: Uint8Array): bigint {
  return koffi().address(bytes);
}

/** The errno left by this thread's last call. */
export function lastErrno(): number {
  return koffi().errno();
}

/** Passes a result through; a negative one becomes a `SysError` with this thread's errno. */
export function checkResult(result: number, what: string): number {
  if (result < 0) throw new SysError(what, koffi().errno());
  return result;
}

/** A path for the kernel: a string is UTF-8; names that are not UTF-8 come as bytes. Neither may hold a NUL byte. */
export type KernelPath = string | Uint8Array;

const nul = Buffer.alloc(1);

/** A path in the form that the bindings pass on: a string, or bytes with a closing NUL. */
export function cPath(path: KernelPath): string | Buffer {
  if (typeof path === 'string') {
    if (path.includes('\0')) throw new SysError(`path ${JSON.stringify(path)}`, constants.errno.EINVAL);
    return path;
  }
  if (path.includes(0)) throw new SysError(`path ${JSON.stringify(showPath(path))}`, constants.errno.EINVAL);
  return Buffer.concat([path, nul]);
}

/** A path as readable text, for messages. */
export function showPath(path: KernelPath): string {
  return typeof path === 'string' ? path : Buffer.from(path).toString();
}
