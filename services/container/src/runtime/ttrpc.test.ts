import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { TtrpcClient, TtrpcError, TtrpcUnavailable } from './ttrpc-client.js';
import { encodeMessage, MAX_MESSAGE_BYTES, MessageDecoder } from './ttrpc-frames.js';
import { TtrpcServer } from './ttrpc-server.js';

let directory: string;
let path: string;

beforeEach(() => {
  directory = mkdtempSync(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'flotilla-ttrpc-'));
  path = join(directory, 's');
});

afterEach(() => rmSync(directory, { recursive: true, force: true }));

describe('messages', () => {
  it('are cut out of chunks of any size', () => {
    const all = Buffer.concat([1, 3, 5].map((stream) => encodeMessage(stream, 2, Buffer.alloc(stream * 7, stream))));
    for (const size of [1, 3, 10, 1000]) {
      const decoder = new MessageDecoder();
      const seen: string[] = [];
      for (let at = 0; at < all.length; at += size) {
        decoder.decode(Buffer.from(all.subarray(at, at + size)), (stream, type, body) =>
          seen.push(`${stream} ${type} ${body.length} ${String(body[0])}`),
        );
      }
      expect(seen).toEqual(['1 2 7 1', '3 2 21 3', '5 2 35 5']);
    }
  });

  it('are refused when they are too long', () => {
    const header = Buffer.alloc(10);
    header.writeUInt32BE(MAX_MESSAGE_BYTES + 1, 0);
    expect(() => new MessageDecoder().decode(header, () => undefined)).toThrow('too long');
  });
});

describe('calls', () => {
  it('carry payload, metadata and errors, side by side', async () => {
    const server = await TtrpcServer.listen(path, async (service, method, payload) => {
      if (method === 'fail') throw new Error(`${service} failed`);
      await new Promise((resolve) => setTimeout(resolve, payload[0] ?? 0));
      return payload;
    });
    const client = await TtrpcClient.connect(path, { name: 'value' });
    const replies = [30, 1, 15].map((delay) => client.call('a.B', 'echo', Uint8Array.of(delay), 5000));
    expect((await Promise.all(replies)).map((reply) => reply[0])).toEqual([30, 1, 15]);
    const failure = await client.call('a.B', 'fail', new Uint8Array(0), 5000).catch((error: unknown) => error);
    expect(failure).toBeInstanceOf(TtrpcError);
    expect(failure).toMatchObject({ code: 2, message: 'a.B failed' });
    client.close();
    await server.close();
  });

  it('fail when nobody listens, nobody answers, or the connection breaks', async () => {
    await expect(TtrpcClient.connect(path, {})).rejects.toBeInstanceOf(TtrpcUnavailable);
    const sockets: Socket[] = [];
    const server = await listen((socket) => sockets.push(socket));
    const client = await TtrpcClient.connect(path, {});
    await expect(client.call('a.B', 'm', new Uint8Array(0), 20)).rejects.toThrow('m took longer than 20 ms');
    const open = client.call('a.B', 'm', new Uint8Array(0), 0);
    sockets[0]?.destroy();
    await expect(open).rejects.toBeInstanceOf(TtrpcUnavailable);
    expect(client.isOpen).toBe(false);
    await expect(client.call('a.B', 'm', new Uint8Array(0), 0)).rejects.toBeInstanceOf(TtrpcUnavailable);
    server.close();
  });

  it('fail when the answer is nonsense', async () => {
    const server = await listen((socket) => socket.on('data', () => socket.write(Buffer.alloc(64, 0xff))));
    const client = await TtrpcClient.connect(path, {});
    await expect(client.call('a.B', 'm', new Uint8Array(0), 0)).rejects.toThrow('malformed');
    server.close();
  });

  it('fail when the body of an answer is nonsense', async () => {
    const server = await listen((socket) =>
      socket.on('data', () => socket.write(encodeMessage(1, 2, Buffer.from([0x0a, 0xff, 0xff])))),
    );
    const client = await TtrpcClient.connect(path, {});
    await expect(client.call('a.B', 'm', new Uint8Array(0), 0)).rejects.toBeInstanceOf(TtrpcUnavailable);
    server.close();
  });

  it('of a client that breaks the protocol are cut', async () => {
    const server = await TtrpcServer.listen(path, () => new Uint8Array(0));
    const client = await TtrpcClient.connect(path, {});
    await expect(client.call('a', 'x'.repeat(MAX_MESSAGE_BYTES), new Uint8Array(0), 0)).rejects.toBeInstanceOf(
      TtrpcUnavailable,
    );
    await server.close();
  });
});

function listen(onConnection: (socket: Socket) => unknown): Promise<Server> {
  const server = createServer((socket) => {
    socket.on('error', () => undefined);
    onConnection(socket);
  });
  return new Promise((resolve) => server.listen(path, () => resolve(server)));
}
