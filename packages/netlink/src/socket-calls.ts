import { bind, checkResult } from '@flotilla/sys';
import type { Call } from '@flotilla/sys';

export const AF_INET = 2;
export const AF_INET6 = 10;
export const AF_NETLINK = 16;
export const SOCK_STREAM = 1;
export const SOCK_DGRAM = 2;
export const SOCK_RAW = 3;
export const SOL_SOCKET = 1;
export const SO_REUSEADDR = 2;
const SOCK_CLOEXEC = 0x80000;

const calls: {
  socket: Call<[number, number, number]>;
  close: Call<[number]>;
  bind: Call<[number, Uint8Array, number]>;
  listen: Call<[number, number]>;
  getsockname: Call<[number, Uint8Array, Uint32Array]>;
  setsockopt: Call<[number, number, number, Uint8Array, number]>;
  send: Call<[number, Uint8Array, number, number]>;
  recv: Call<[number, Uint8Array, number, number]>;
} = {
  socket: bind('int socket(int family, int type, int protocol)'),
  close: bind('int close(int fd)'),
  bind: bind('int bind(int fd, const void *address, uint32_t size)'),
  listen: bind('int listen(int fd, int backlog)'),
  getsockname: bind('int getsockname(int fd, _Out_ uint8_t *address, _Inout_ uint32_t *size)'),
  setsockopt: bind('int setsockopt(int fd, int level, int name, const void *value, uint32_t size)'),
  send: bind('int64_t send(int fd, const void *data, size_t size, int flags)'),
  recv: bind('int64_t recv(int fd, _Out_ uint8_t *data, size_t size, int flags)'),
};

/** Each call is synchronous and throws `SysError`. */
export const socketCalls = {
  /** Close-on-exec. */
  socket: (family: number, type: number, protocol: number): number =>
    checkResult(calls.socket(family, type | SOCK_CLOEXEC, protocol), 'socket'),
  close: (fd: number): void => void checkResult(calls.close(fd), 'close'),
  bind: (fd: number, address: Uint8Array): void => void checkResult(calls.bind(fd, address, address.length), 'bind'),
  listen: (fd: number, backlog: number): void => void checkResult(calls.listen(fd, backlog), 'listen'),
  getsockname: (fd: number): Buffer => {
    const address = Buffer.alloc(128);
    const size = new Uint32Array([address.length]);
    checkResult(calls.getsockname(fd, address, size), 'getsockname');
    return address.subarray(0, size[0]);
  },
  setOption: (fd: number, level: number, name: number, value: number): void => {
    const bytes = Buffer.alloc(4);
    bytes.writeInt32LE(value);
    checkResult(calls.setsockopt(fd, level, name, bytes, bytes.length), 'setsockopt');
  },
  /** A socket option that is a struct timeval of whole seconds. */
  setTimeOption: (fd: number, level: number, name: number, seconds: number): void => {
    const bytes = Buffer.alloc(16);
    bytes.writeBigInt64LE(BigInt(seconds), 0);
    checkResult(calls.setsockopt(fd, level, name, bytes, bytes.length), 'setsockopt');
  },
  send: (fd: number, data: Uint8Array): number => checkResult(calls.send(fd, data, data.length, 0), 'send'),
  recv: (fd: number, data: Uint8Array): number => checkResult(calls.recv(fd, data, data.length, 0), 'recv'),
};
