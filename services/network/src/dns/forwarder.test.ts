import { createSocket } from 'node:dgram';
import type { Socket as UdpSocket } from 'node:dgram';
import { once } from 'node:events';
import { createServer } from 'node:net';
import type { AddressInfo, Server } from 'node:net';
import * as packet from 'dns-packet';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { parseQuestion } from './dns-message.js';
import { Forwarder } from './forwarder.js';
import { framed } from './upstream-query.js';

type Reply = (query: Buffer) => Buffer | undefined;

const query = packet.encode({ type: 'query', id: 99, questions: [{ name: 'Far.test', type: 'A', class: 'IN' }] });
const question = parseQuestion(query);

/** An answer with one address, or with an error code and none. */
function answer(asked: Buffer, address: string, code = 0, more: Partial<packet.Packet> = {}): Buffer {
  const { id, questions = [] } = packet.decode(asked);
  const answers: packet.Answer[] = code === 0 ? [{ name: 'Far.test', type: 'A', ttl: 9, data: address }] : [];
  return packet.encode({ type: 'response', id: id ?? 0, flags: code, questions, answers, ...more });
}

describe('the forwarder', () => {
  const sockets: (UdpSocket | Server)[] = [];
  let port: number;
  let forwarder: Forwarder;
  /** What each server was asked, in order. */
  const asked: string[] = [];

  const udpServer = async (address: string, reply: Reply): Promise<void> => {
    const socket = createSocket('udp4');
    socket.on('message', (message, from) => {
      asked.push(address);
      const bytes = reply(message);
      if (bytes !== undefined) socket.send(bytes, from.port, from.address);
    });
    socket.bind(port, address);
    await once(socket, 'listening');
    sockets.push(socket);
    port = socket.address().port;
    forwarder = new Forwarder(port);
  };
  const ask = async (servers: string[], transport: 'udp' | 'tcp' = 'udp', asker = 'me'): Promise<unknown> => {
    const bytes = await forwarder.ask({ asker, query, question, servers, transport });
    if (bytes === undefined) return undefined;
    const decoded = packet.decode(bytes) as packet.DecodedPacket & { rcode: string };
    expect(decoded.id).toBe(99);
    const [first] = decoded.answers ?? [];
    return first !== undefined && 'data' in first ? first.data : decoded.rcode;
  };

  beforeEach(() => {
    port = 0;
    asked.length = 0;
  });
  afterEach(() => {
    vi.useRealTimers();
    for (const socket of sockets.splice(0)) socket.close();
    expect(forwarder.inFlight).toBe(0);
  });

  it('takes the next server when one refuses, fails or is not there', async () => {
    await udpServer('127.0.0.2', (message) => answer(message, '', 5));
    await udpServer('127.0.0.3', (message) => answer(message, '', 2));
    await udpServer('127.0.0.4', (message) => answer(message, '192.0.2.4'));
    expect(await ask(['127.0.0.2', '127.0.0.3', '127.0.0.4'])).toBe('192.0.2.4');
    expect(await ask(['127.0.0.9', 'nonsense', '127.0.0.4'])).toBe('192.0.2.4');
    expect(await ask(['127.0.0.2', '127.0.0.3'])).toBeUndefined();
    expect(await ask(['127.0.0.2', '127.0.0.3', '127.0.0.9', '127.0.0.4'])).toBeUndefined(); // the first three count
    expect(await ask([])).toBeUndefined();
  });

  it('passes on that a name does not exist', async () => {
    await udpServer('127.0.0.2', (message) => answer(message, '', 3));
    await udpServer('127.0.0.3', (message) => answer(message, '192.0.2.3'));
    expect(await ask(['127.0.0.2', '127.0.0.3'])).toBe('NXDOMAIN');
    expect(asked).toEqual(['127.0.0.2']);
  });

  it('asks another one while a server is silent, and that one first from then on', async () => {
    await udpServer('127.0.0.2', () => undefined);
    await udpServer('127.0.0.3', (message) => answer(message, '192.0.2.3'));
    const servers = ['127.0.0.2', '127.0.0.3'];
    expect(await ask(servers)).toBe('192.0.2.3');
    expect(await ask(servers)).toBe('192.0.2.3');
    expect(asked).toEqual(['127.0.0.2', '127.0.0.3', '127.0.0.3']);
  });

  it('gives up when nobody answers, and lets nobody wait for the answers of others', async () => {
    await udpServer('127.0.0.2', () => undefined);
    await udpServer('127.0.0.3', (message) => answer(message, '192.0.2.3'));
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    const hanging = Array.from({ length: 128 }, () => ask(['127.0.0.2']));
    expect(await ask(['127.0.0.3'])).toBeUndefined(); // this one waits for enough already
    expect(await ask(['127.0.0.3'], 'udp', 'neighbour')).toBe('192.0.2.3');
    expect(forwarder.inFlight).toBe(128);
    vi.advanceTimersByTime(4000);
    expect(new Set(await Promise.all(hanging))).toEqual(new Set([undefined]));
    expect(await ask(['127.0.0.3'])).toBe('192.0.2.3');
  });

  it('takes nothing that is no answer to its question', async () => {
    const forged: Reply[] = [
      (message) => answer(Buffer.from(message).fill(message[0] === 0 ? 1 : 0, 0, 1), '192.0.2.66'),
      (message) => message,
      (message) => answer(message, '192.0.2.66', 0, { questions: [{ name: 'bar.test', type: 'A', class: 'IN' }] }),
      (message) => answer(message, '192.0.2.66', 0, { questions: [] }),
      (message) => message.subarray(0, 5),
      () => Buffer.alloc(0),
    ];
    const socket = createSocket('udp4');
    socket.on('message', (message, from) => {
      for (const reply of [...forged, (genuine: Buffer) => answer(genuine, '192.0.2.2')]) {
        socket.send(reply(message) ?? '', from.port, from.address);
      }
    });
    socket.bind(0, '127.0.0.2');
    await once(socket, 'listening');
    sockets.push(socket);
    forwarder = new Forwarder(socket.address().port);
    expect(await ask(['127.0.0.2'])).toBe('192.0.2.2');
  });

  it('asks over tcp without ending the connection, and takes answers in pieces', async () => {
    let hasEnded = false;
    const server = createServer((socket) => {
      let received = Buffer.alloc(0);
      socket.on('end', () => (hasEnded = true));
      socket.on('error', () => undefined);
      socket.on('data', (data) => {
        received = Buffer.concat([received, data]);
        if (received.length < 2 + query.length) return;
        expect(hasEnded).toBe(false);
        const bytes = framed(answer(received.subarray(2), '192.0.2.2'));
        socket.write(bytes.subarray(0, 1), () => socket.write(bytes.subarray(1)));
      });
    });
    server.listen(0, '127.0.0.2');
    await once(server, 'listening');
    sockets.push(server);
    forwarder = new Forwarder((server.address() as AddressInfo).port);
    expect(await ask(['127.0.0.9', '127.0.0.2'], 'tcp')).toBe('192.0.2.2');
  });
});
