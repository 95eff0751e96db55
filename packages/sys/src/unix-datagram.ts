import { constants } from 'node:os';
import { closeSync } from 'node:fs';
import type { Call } from './libc.js';
import { bind, checkResult, lastErrno } from './libc.js';
import { SysError } from './sys-error.js';

const AF_UNIX = 1;
const SOCK_DGRAM = 2;
const SOCK_CLOEXEC = 0x80000;
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;
/** `sun_path` of a sockaddr_un, with its closing NUL. */
const MAX_PATH_BYTES = 108;

const socketCall: Call<[number, number, number]> = bind('int socket(int family, int type, int protocol)');
const connectCall: Call<[number, Uint8Array, number]> = bind('int connect(int fd, const void *address, uint32_t size)');
const sendCall: Call<[number, Uint8Array, number, number]> = bind(
  'int64_t send(int fd, const void *data, size_t size, int flags)',
);

/** A unix datagram socket that is connected to another, which Node has none of. Synchronous; never waits. */
export class UnixDatagramSocket {
  #fd: number;

  /** @throws SysError when nobody listens at `path`. */
  constructor(path: string) {
    const bytes = Buffer.from(path);
    if (bytes.length >= MAX_PATH_BYTES) throw new SysError(`connect to ${path}`, constants.errno.ENAMETOOLONG);
    const address = Buffer.alloc(2 + bytes.length + 1);
    address.writeUInt16LE(AF_UNIX, 0);
    address.set(bytes, 2);
    this.#fd = checkResult(socketCall(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0), 'socket');
    try {
      checkResult(connectCall(this.#fd, address, address.length), `connect to ${path}`);
    } catch (error) {
      this.close();
      throw error;
    }
  }

  /** False when the receiver's queue is full: try again later. @throws SysError, `EMSGSIZE` for what is too large. */
  send(data: Uint8Array): boolean {
    if (sendCall(this.#fd, data, data.length, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0) return true;
    const errno = lastErrno();
    if (errno === constants.errno.EAGAIN || errno === constants.errno.ENOBUFS) return false;
    throw new SysError('send', errno);
  }

  close(): void {
    if (this.#fd >= 0) closeSync(this.#fd);
    this.#fd = -1;
  }
}
