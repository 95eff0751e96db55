import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { IncomingMessage } from 'node:http';
import { type Server, type Socket, connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { HijackedConnection } from '../src/http/hijack.js';

let directory: string;
let server: Server;
beforeEach(async () => {
  directory = mkdtempSync(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'gw-'));
  server = createServer({ allowHalfOpen: true, highWaterMark: 256 * 1024 }).listen(join(directory, 'sock'));
  await once(server, 'listening');
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
});
afterEach(() => {
  vi.useRealTimers();
  server.close();
  rmSync(directory, { recursive: true });
});

test('a client that takes the last output late gets all of it; one that never closes is let go', async () => {
  const client = connect({ path: join(directory, 'sock'), allowHalfOpen: true });
  client.pause();
  const [socket] = (await once(server, 'connection')) as [Socket];
  const connection = new HijackedConnection(new IncomingMessage(socket), socket, Buffer.alloc(0));
  // The connection says that it takes more, yet the kernel has no room for all of this.
  const bytes = Buffer.alloc(255 * 1024, 'x');
  await connection.write(bytes, new AbortController().signal);
  connection.end();
  await new Promise((resolve) => setImmediate(resolve));
  expect(socket.writableFinished).toBe(false);
  vi.advanceTimersByTime(60_000);
  expect(socket.destroyed).toBe(false);
  let received = 0;
  client.on('data', (chunk: Buffer) => (received += chunk.length));
  client.resume();
  await once(client, 'end');
  expect(received).toBe(bytes.length);
  if (!socket.writableFinished) await once(socket, 'finish');
  expect(socket.destroyed).toBe(false);
  vi.advanceTimersByTime(60_000);
  expect(socket.destroyed).toBe(true);
  client.destroy();
});
