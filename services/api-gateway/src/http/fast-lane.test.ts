import { once } from 'node:events';
import { createServer, request } from 'node:http';
import type { Server } from 'node:net';
import { connect } from 'node:net';
import type { AddressInfo, Socket } from 'node:net';
import { afterEach, describe, expect, it } from 'vitest';
import { createFastLane } from './fast-lane.js';

const ready = { head: 'HTTP/1.1 200 OK\r\nContent-Length: 4\r\n', body: Buffer.from('fast') };

describe('fast lane', () => {
  let server: Server;
  const sockets: Socket[] = [];
  const ordinary: string[] = [];

  const start = async (): Promise<number> => {
    const http = createServer((req, res) => {
      const parts: Buffer[] = [];
      req.on('data', (part: Buffer) => parts.push(part));
      req.on('end', () => {
        ordinary.push(`${req.method ?? ''} ${req.url ?? ''} ${Buffer.concat(parts).toString()}`);
        res.end('slow');
      });
    });
    server = createFastLane(http, (target) => (target === '/ready' ? ready : undefined));
    server.on('connection', (socket) => sockets.push(socket));
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    return (server.address() as AddressInfo).port;
  };
  afterEach(() => {
    ordinary.length = 0;
    for (const socket of sockets.splice(0)) socket.destroy();
    server.close();
  });

  /** Send raw bytes in the given pieces; resolves with all that comes back once `until` is in it. */
  const raw = async (port: number, pieces: readonly string[], until: RegExp): Promise<string> => {
    const socket = connect(port, '127.0.0.1');
    let text = '';
    const done = new Promise<string>((resolve, reject) => {
      socket.on('data', (chunk: Buffer) => {
        text += chunk.toString();
        if (until.test(text)) resolve(text);
      });
      socket.on('close', () => resolve(text));
      socket.on('error', reject);
    });
    let sent = 0;
    for (const piece of pieces) {
      socket.write(piece);
      sent += piece.length;
      // Pieces must arrive one by one: the next goes out when the server has read the last.
      while ((sockets.at(-1)?.bytesRead ?? 0) < sent) await new Promise((resolve) => setImmediate(resolve));
    }
    const result = await done;
    socket.destroy();
    return result;
  };

  it('answers a plain GET from ready bytes, again and again on one connection', async () => {
    const port = await start();
    const one = 'GET /ready HTTP/1.1\r\nHost: x\r\n\r\n';
    const socket = connect(port, '127.0.0.1');
    for (let i = 0; i < 3; i += 1) {
      socket.write(one);
      const [chunk] = (await once(socket, 'data')) as [Buffer];
      expect(chunk.toString()).toMatch(/^HTTP\/1\.1 200 OK\r\nContent-Length: 4\r\nDate: .* GMT\r\n\r\nfast$/);
    }
    socket.write('GET /other HTTP/1.1\r\nHost: x\r\n\r\n');
    expect(((await once(socket, 'data')) as [Buffer])[0].toString()).toContain('slow');
    socket.write(one);
    expect(((await once(socket, 'data')) as [Buffer])[0].toString()).toContain('slow');
    socket.destroy();
    expect(ordinary).toEqual(['GET /other ', 'GET /ready ']);
  });

  it.each([
    ['a body', ['GET /ready HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi'], 'GET /ready hi'],
    ['a body that comes later', ['GET /ready HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n', 'hi'], 'GET /ready hi'],
    [
      'chunks',
      ['GET /ready HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n'],
      'GET /ready hi',
    ],
    ['another method', ['POST /ready HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi'], 'POST /ready hi'],
    ['a head in two pieces', ['GET /re', 'ady HTTP/1.1\r\nHost: x\r\n\r\n'], 'GET /ready '],
    ['HTTP/1.0', ['GET /ready HTTP/1.0\r\nHost: x\r\n\r\n'], 'GET /ready '],
    [
      'the end of the connection asked for',
      ['GET /ready HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n'],
      'GET /ready ',
    ],
  ])('leaves %s to the HTTP server, with every byte', async (_what, pieces, seen) => {
    const port = await start();
    expect(await raw(port, pieces, /slow/)).toContain('slow');
    expect(ordinary).toEqual([seen]);
  });

  it('leaves pipelined requests to the HTTP server in their order', async () => {
    const port = await start();
    const text = await raw(
      port,
      ['GET /ready HTTP/1.1\r\nHost: x\r\n\r\nGET /b HTTP/1.1\r\nHost: x\r\n\r\n'],
      /slow[^]*slow/,
    );
    expect(text.match(/slow/g)).toHaveLength(2);
    expect(ordinary).toEqual(['GET /ready ', 'GET /b ']);
  });

  it('refuses garbage and a missing Host as the HTTP server does', async () => {
    const port = await start();
    expect(await raw(port, ['nonsense\r\n\r\n'], /400/)).toContain('400 Bad Request');
    expect(await raw(port, ['GET /ready HTTP/1.1\r\n\r\n'], /400/)).toContain('400 Bad Request');
  });

  it('survives a client that closes at any point', async () => {
    const port = await start();
    for (const piece of ['', 'GET /re', 'GET /ready HTTP/1.1\r\nHost: x\r\n\r\n']) {
      const socket = connect(port, '127.0.0.1');
      await once(socket, 'connect');
      if (piece !== '') socket.write(piece);
      socket.end();
      socket.resume();
      await once(socket, 'close');
    }
    const body = await new Promise<string>((resolve, reject) => {
      request({ port, path: '/ready', agent: false }, (res) =>
        res.on('data', (part: Buffer) => resolve(part.toString())),
      )
        .on('error', reject)
        .end();
    });
    expect(['fast', 'slow']).toContain(body);
  });
});
