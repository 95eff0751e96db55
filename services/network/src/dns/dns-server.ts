import { createSocket } from 'node:dgram';
import type { RemoteInfo } from 'node:dgram';
import { createServer } from 'node:net';
import type { Socket } from 'node:net';
import type { Logger } from '@flotilla/log';
import type { DnsSockets } from '../kernel/kernel-operations.js';
import { framed } from './forwarder.js';
import type { Resolver } from './resolver.js';

const tcpIdleMs = 10_000;
const maxTcpConnections = 64;

/**
 * Serves 127.0.0.11 of one sandbox, on sockets made inside its namespace: who asks is known by the socket.
 * Owns the descriptors; `close` ends them.
 */
export class DnsServer {
  readonly #containerId: string;
  readonly #resolver: Resolver;
  readonly #udp = createSocket('udp4');
  readonly #connections = new Set<Socket>();
  readonly #tcp = createServer({ allowHalfOpen: true }, (socket) => this.#serveConnection(socket));

  constructor(containerId: string, sockets: DnsSockets, resolver: Resolver, log: Logger) {
    this.#containerId = containerId;
    this.#resolver = resolver;
    const failed = (error: Error): void => log.warn({ containerId, err: error }, 'dns socket failed');
    this.#udp.on('error', failed);
    this.#udp.on('message', (query, from) => this.#serveDatagram(query, from));
    this.#udp.bind({ fd: sockets.udp });
    this.#tcp.maxConnections = maxTcpConnections;
    this.#tcp.on('error', failed);
    this.#tcp.listen({ fd: sockets.tcp });
  }

  close(): void {
    this.#udp.close();
    this.#tcp.close();
    for (const socket of this.#connections) socket.destroy();
  }

  #serveDatagram(query: Buffer, from: RemoteInfo): void {
    this.#answer(query, 'udp', (answer) => {
      try {
        this.#udp.send(answer, from.port, from.address, () => undefined);
      } catch {
        // closed while the outside was asked
      }
    });
  }

  #serveConnection(socket: Socket): void {
    this.#connections.add(socket);
    let received = Buffer.alloc(0);
    socket.setTimeout(tcpIdleMs, () => socket.destroy());
    socket.on('error', () => socket.destroy());
    socket.on('close', () => this.#connections.delete(socket));
    socket.on('end', () => setImmediate(() => socket.end()));
    socket.on('data', (data) => {
      received = Buffer.concat([received, data]);
      while (received.length >= 2 && received.length >= 2 + received.readUInt16BE(0)) {
        const end = 2 + received.readUInt16BE(0);
        const query = received.subarray(2, end);
        received = received.subarray(end);
        this.#answer(query, 'tcp', (answer) => {
          if (socket.writable) socket.write(framed(answer));
        });
      }
    });
  }

  #answer(query: Buffer, transport: 'udp' | 'tcp', send: (answer: Buffer) => void): void {
    const answer = this.#resolver.answer(this.#containerId, query, transport);
    if (answer instanceof Promise) void answer.then(send);
    else if (answer !== undefined) send(answer);
  }
}
