import { rmSync } from 'node:fs';
import { bind as bindC, checkResult } from '@flotilla/sys';

const AF_UNIX = 1;
const SOCK_STREAM = 1;
const SOCK_CLOEXEC = 0o2000000;
const BACKLOG = 128;
/** Bytes of `sun_path`, the closing NUL included. */
const MAX_PATH_BYTES = 108;

const socketCall = bindC('int socket(int domain, int type, int protocol)');
const bindCall = bindC('int bind(int fd, const uint8_t *address, uint32_t length)');
const listenCall = bindC('int listen(int fd, int backlog)');
const closeCall = bindC('int close(int fd)');

/**
 * A listening unix socket as a bare descriptor, to be passed on to a child (Node's own servers remove the path when they are closed).
 * Clients can connect at once; they are served when somebody accepts. The caller closes the descriptor.
 * @throws SysError
 */
export function listenUnix(path: string): number {
  const name = Buffer.from(`${path}\0`);
  if (name.length > MAX_PATH_BYTES) throw new Error(`socket path ${path} is longer than ${MAX_PATH_BYTES - 1} bytes`);
  rmSync(path, { force: true });
  const address = Buffer.alloc(2 + name.length);
  address.writeUInt16LE(AF_UNIX, 0);
  name.copy(address, 2);
  const fd = checkResult(socketCall(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), 'make a socket');
  try {
    checkResult(bindCall(fd, address, address.length), `bind ${path}`);
    checkResult(listenCall(fd, BACKLOG), `listen at ${path}`);
  } catch (error) {
    closeCall(fd);
    throw error;
  }
  return fd;
}
