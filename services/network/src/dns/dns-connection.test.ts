import { once } from 'node:events';
import { connect, createServer } from 'node:net';
import type { AddressInfo, Server, Socket } from 'node:net';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { serveConnection } from './dns-connection.js';
import type { Answer } from './dns-connection.js';
import { framed } from './upstream-query.js';

describe('a tcp connection of a container', () => {
  let server: Server;
  let served: Socket;

  const open = async (answer: Answer): Promise<Socket> => {
    server = createServer({ allowHalfOpen: true }, (socket) => {
      served = socket;
      serveConnection(socket, answer);
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const client = connect({
      host: '127.0.0.1',
      port: (server.address() as AddressInfo).port,
      allowHalfOpen: true,
    });
    await once(client, 'connect');
    return client;
  };
  /** Everything that comes until the server ends the connection. */
  const readAll = async (client: Socket): Promise<string[]> => {
    const chunks: Buffer[] = [];
    client.on('data', (data: Buffer) => chunks.push(data));
    await once(client, 'end');
    const all = Buffer.concat(chunks);
    const messages: string[] = [];
    for (let at = 0; at < all.length; at += 2 + all.readUInt16BE(at))
      messages.push(all.toString('latin1', at + 2, at + 2 + all.readUInt16BE(at)));
    client.destroy();
    return messages;
  };
  afterEach(() => {
    vi.useRealTimers();
    served.destroy();
    server.close();
  });

  it('answers queries that come in pieces and all at once, and those on their way when the client ends', async () => {
    const client = await open((query) =>
      query.toString() === 'later'
        ? new Promise((resolve) => setImmediate(() => resolve(Buffer.from('at last'))))
        : query.toString() === 'silence'
          ? undefined
          : query,
    );
    const bytes = Buffer.concat(['one', 'silence', 'later', 'two'].map((text) => framed(Buffer.from(text))));
    client.write(bytes.subarray(0, 4), () => client.end(bytes.subarray(4)));
    expect((await readAll(client)).sort()).toEqual(['at last', 'one', 'two']);
  });

  it('does not read on from a client that does not read', async () => {
    const size = 60_000;
    const client = await open(() => Buffer.alloc(size, 'x'));
    const asked = 500; // far more than the buffers of both ends hold
    for (let count = 0; count < asked; count++) client.write(framed(Buffer.from('?')));
    client.end();
    await vi.waitFor(() => expect(served.isPaused()).toBe(true));
    expect(served.writableLength).toBeLessThan(256 * 1024 + 2 * size);
    expect(await readAll(client)).toHaveLength(asked);
  });

  it('has only so many answers on their way', async () => {
    const waiting: (() => void)[] = [];
    const client = await open((query) => new Promise((resolve) => waiting.push(() => resolve(query))));
    for (let count = 0; count < 200; count++) client.write(framed(Buffer.from(`${count}`)));
    client.end();
    const messages = readAll(client);
    await vi.waitFor(() => expect(served.isPaused()).toBe(true));
    expect(waiting).toHaveLength(64);
    void messages.then(() => clearInterval(answering));
    const answering = setInterval(() => waiting.splice(0).forEach((answer) => answer()), 1);
    expect(await messages).toHaveLength(200);
  });

  it('cuts off a client that does not finish its query, however often it sends a byte', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    const client = await open((query) => query);
    client.on('error', () => undefined);
    client.write(Buffer.from([0xff, 0xff, 1]));
    await once(served, 'data');
    vi.advanceTimersByTime(9000);
    client.write(Buffer.from([2]));
    await once(served, 'data');
    expect(served.destroyed).toBe(false);
    vi.advanceTimersByTime(1000);
    expect(served.destroyed).toBe(true);
  });
});
