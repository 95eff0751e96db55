import { createSocket } from 'node:dgram';
import type { RemoteInfo } from 'node:dgram';
import { createServer } from 'node:net';
import type { Socket } from 'node:net';
import type { Logger } from '@flotilla/log';
import type { DnsSockets } from '../kernel/kernel-operations.js';
import { serveConnection } from './dns-connection.js';
import type { Resolver } from './resolver.js';

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
  #isClosed = false;

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
    this.#isClosed = true;
    this.#udp.close();
    this.#tcp.close();
    for (const socket of this.#connections) socket.destroy();
  }

  #serveDatagram(query: Buffer, from: RemoteInfo): void {
    const answer = this.#resolver.answer(this.#containerId, query, 'udp');
    const send = (message: Buffer): void => {
      if (!this.#isClosed) this.#udp.send(message, from.port, from.address, () => undefined);
    };
    if (answer instanceof Promise) void answer.then(send);
    else if (answer !== undefined) send(answer);
  }

  #serveConnection(socket: Socket): void {
    this.#connections.add(socket);
    socket.on('close', () => this.#connections.delete(socket));
    serveConnection(socket, (query) => this.#resolver.answer(this.#containerId, query, 'tcp'));
  }
}
