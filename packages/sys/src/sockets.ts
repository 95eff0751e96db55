import type { Call } from './libc.js';
import { bind, checkResult } from './libc.js';

const setsockopt: Call<[number, number, number, Int32Array, number]> = bind(
  'int setsockopt(int fd, int level, int name, const int32_t *value, uint32_t length)',
);
const SOL_SOCKET = 1;
const SO_SNDBUF = 7;
const SO_SNDBUFFORCE = 32;

/** Lets so many bytes be written to a socket before its reader has read any. Without CAP_NET_ADMIN at most net.core.wmem_max. */
export function setSendBuffer(fd: number, bytes: number): void {
  const value = Int32Array.of(bytes);
  if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, value, value.byteLength) === 0) return;
  checkResult(setsockopt(fd, SOL_SOCKET, SO_SNDBUF, value, value.byteLength), `set send buffer of descriptor ${fd}`);
}
