import { addressBytes } from './addresses.js';
import { AF_INET, AF_INET6, SOCK_DGRAM, SOCK_STREAM, SOL_SOCKET, SO_REUSEADDR, socketCalls } from './socket-calls.js';

export interface BoundSocket {
  /** Owned by the receiver of this object; may be handed to Node's `net` or `dgram` by number. */
  fd: number;
  port: number;
}

const LISTEN_BACKLOG = 128;

/**
 * A TCP listener or UDP socket bound in the calling thread's present network namespace, where it stays.
 *
 * @param port 0 for any free one
 * @throws SysError EADDRINUSE and the like
 */
export function bindSocket(kind: 'tcp' | 'udp', address: string, port: number): BoundSocket {
  const bytes = addressBytes(address);
  const isV6 = bytes.length === 16;
  const fd = socketCalls.socket(isV6 ? AF_INET6 : AF_INET, kind === 'tcp' ? SOCK_STREAM : SOCK_DGRAM, 0);
  try {
    if (kind === 'tcp') socketCalls.setOption(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    const socketAddress = Buffer.alloc(isV6 ? 28 : 16);
    socketAddress.writeUInt16LE(isV6 ? AF_INET6 : AF_INET, 0);
    socketAddress.writeUInt16BE(port, 2);
    socketAddress.set(bytes, isV6 ? 8 : 4);
    socketCalls.bind(fd, socketAddress);
    if (kind === 'tcp') socketCalls.listen(fd, LISTEN_BACKLOG);
    return { fd, port: socketCalls.getsockname(fd).readUInt16BE(2) };
  } catch (error) {
    socketCalls.close(fd);
    throw error;
  }
}

/** Close a descriptor that no Node object owns. */
export function closeDescriptor(fd: number): void {
  socketCalls.close(fd);
}
