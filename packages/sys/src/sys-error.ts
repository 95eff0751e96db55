import { constants } from 'node:os';

const names = new Map<number, string>();
for (const [name, value] of Object.entries(constants.errno)) if (!names.has(value)) names.set(value, name);

/** The symbolic name of an errno value (`ENOENT`), or `errno N` when this platform has none for it. */
export function errnoName(errno: number): string {
  return names.get(errno) ?? `errno ${errno}`;
}

/** A system call that failed. `code` is spelled as in Node's own fs errors, so the two can be handled alike. */
export class SysError extends Error {
  readonly errno: number;
  readonly code: string;
  /** What was tried: the call and its main argument. */
  readonly what: string;

  constructor(what: string, errno: number, detail = '') {
    const code = errnoName(errno);
    super(detail === '' ? `${what}: ${code}` : `${what}: ${detail} (${code})`);
    this.name = 'SysError';
    this.what = what;
    this.errno = errno;
    this.code = code;
  }
}

/** Whether `error` carries this errno name: a SysError or one of Node's system errors. */
export function hasCode(error: unknown, ...codes: string[]): boolean {
  return error instanceof Error && 'code' in error && codes.includes(String(error.code));
}
