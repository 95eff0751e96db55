import { readFileSync } from 'node:fs';
import { constants } from 'node:os';
import type { Call } from './libc.js';
import { bind, checkResult } from './libc.js';
import { SysError, hasCode } from './sys-error.js';

const killCall: Call<[number, number]> = bind('int kill(int pid, int signal)');
const getsockoptCall: Call<[number, number, number, Int32Array, Uint32Array]> = bind(
  'int getsockopt(int fd, int level, int option, _Out_ int *value, _Inout_ uint32_t *length)',
);
const SOL_SOCKET = 1;
const SO_PEERCRED = 17;

/** kill(2) of one process. Signal 0 only checks that it is there. Groups and "everything" (0, negative) are refused. */
export function killProcess(pid: number, signal: number): void {
  if (!Number.isSafeInteger(pid) || pid <= 0) throw new SysError(`kill ${pid}`, constants.errno.EINVAL);
  checkResult(killCall(pid, signal), `kill ${pid} with signal ${signal}`);
}

/**
 * When a process started, in clock ticks since boot: with its id it names a process for good.
 * Undefined when there is none; a zombie counts as one.
 */
export function processStartTime(pid: number | 'self'): number | undefined {
  let stat: string;
  try {
    stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
  } catch (error) {
    if (hasCode(error, 'ENOENT', 'ESRCH')) return undefined;
    throw error;
  }
  // The name in parentheses may hold spaces and parentheses; the 22nd field is the 20th after it.
  return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19]);
}

export interface PeerCredentials {
  pid: number;
  uid: number;
  gid: number;
}

/** Who is at the other end of a connected unix socket, as it was when it connected. */
export function peerCredentials(fd: number): PeerCredentials {
  const value = new Int32Array(3);
  const length = new Uint32Array([12]);
  checkResult(getsockoptCall(fd, SOL_SOCKET, SO_PEERCRED, value, length), `peer of descriptor ${fd}`);
  return { pid: value[0] ?? 0, uid: (value[1] ?? 0) >>> 0, gid: (value[2] ?? 0) >>> 0 };
}
