import { SysError } from '@flotilla/sys';

/** The kernel refused a netlink request. */
export class NetlinkError extends SysError {
  /** Position of the refused message in a request that carried several. */
  readonly index: number;

  /** @param detail the kernel's own sentence, where it gave one */
  constructor(what: string, errno: number, index = 0, detail = '') {
    super(what, errno, detail);
    this.name = 'NetlinkError';
    this.index = index;
  }
}

/** Whether `error` is a `NetlinkError`, and with one of `codes` (`EEXIST`, ...) when some are given. */
export function isNetlinkError(error: unknown, ...codes: string[]): error is NetlinkError {
  return error instanceof NetlinkError && (codes.length === 0 || codes.includes(error.code));
}
