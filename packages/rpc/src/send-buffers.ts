import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import type { Server, Socket } from 'node:net';
import { setSendBuffer } from '@flotilla/sys';

/** Four times what the flow control window of a connection lets a server send before its client has taken any of it. */
const sendBufferBytes = 4 << 20;

/**
 * Gives the connections of the server at `path` room for all that may be under way to a client.
 *
 * Node's HTTP/2 does not read while it waits for a write. Where both sides wait, neither ever reads: a unix socket takes 200 KiB, which is less than
 * a window, and a client that cancels hundreds of streams at once fills its own direction with small frames. A server that never waits reads them.
 */
export function widenSendBuffers(path: string): Disposable {
  const accepted = (message: unknown): void => {
    const { socket } = message as { socket: Socket & { server?: Server; _handle?: { fd?: number } } };
    const fd = socket._handle?.fd ?? -1;
    if (fd >= 0 && socket.server?.address() === path) setSendBuffer(fd, sendBufferBytes);
  };
  subscribe('net.server.socket', accepted);
  return { [Symbol.dispose]: () => unsubscribe('net.server.socket', accepted) };
}
