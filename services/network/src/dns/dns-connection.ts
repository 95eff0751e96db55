import type { Socket } from 'node:net';
import { framed } from './upstream-query.js';

/** A query that has begun must be whole, and an answer taken, within this time. */
const idleMs = 10_000;
const maxPending = 64;
const maxUnsentBytes = 256 * 1024;

/** The answer to a query, now or later; undefined when it deserves none. */
export type Answer = (query: Buffer) => Buffer | Promise<Buffer> | undefined;

/**
 * Serve one TCP connection of a container. A client that asks more than it reads, or than can be answered at once, is not
 * read from until it has caught up; one that is too slow is cut off.
 */
export function serveConnection(socket: Socket, answer: Answer): void {
  let received = Buffer.alloc(0);
  let pending = 0;
  let hasEnded = false;
  const cutOff = setTimeout(() => socket.destroy(), idleMs);
  const isBehind = (): boolean => pending >= maxPending || socket.writableLength > maxUnsentBytes;

  const reply = (message: Buffer): void => {
    if (!socket.writable) return;
    socket.write(framed(message));
  };
  const work = (): void => {
    while (!isBehind() && received.length >= 2 && received.length >= 2 + received.readUInt16BE(0)) {
      const end = 2 + received.readUInt16BE(0);
      const query = received.subarray(2, end);
      received = received.subarray(end);
      cutOff.refresh();
      const result = answer(query);
      if (!(result instanceof Promise)) {
        if (result !== undefined) reply(result);
        continue;
      }
      pending++;
      void result.then((message) => {
        pending--;
        cutOff.refresh();
        reply(message);
        work();
      });
    }
    if (isBehind()) socket.pause();
    else if (hasEnded && pending === 0) socket.end();
    else socket.resume();
  };
  socket.on('data', (data) => {
    received = Buffer.concat([received, data]);
    work();
  });
  socket.on('drain', () => {
    cutOff.refresh();
    work();
  });
  socket.on('end', () => {
    hasEnded = true;
    work();
  });
  socket.on('error', () => socket.destroy());
  socket.on('close', () => clearTimeout(cutOff));
}
