import { createSocket } from 'node:dgram';
import { createServer } from 'node:net';
import type { Socket } from 'node:net';
import type { Logger } from '@flotilla/log';
import { DatagramBatch } from '@flotilla/netlink';
import type { DatagramSource } from '@flotilla/netlink';
import type { DnsSockets } from '../kernel/kernel-operations.js';
import { serveConnection } from './dns-connection.js';
import type { Resolver } from './resolver.js';

const maxTcpConnections = 64;
const batchSize = 32;
/** Above what any query takes; longer answers go out by themselves. */
const maxDatagram = 4096;

/** For all sandboxes: queries that come while another is answered are taken together. Made when first needed. */
let batch: DatagramBatch | undefined;

/**
 * Serves 127.0.0.11 of one sandbox, on sockets made inside its namespace: who asks is known by the socket.
 * Owns the descriptors; `close` ends them.
 */
export class DnsServer {
  readonly #containerId: string;
  readonly #resolver: Resolver;
  /** Answers go to addresses, never to names. */
  readonly #udp = createSocket({ type: 'udp4', lookup: (address, _options, done) => done(null, address, 4) });
  readonly #connections = new Set<Socket>();
  readonly #tcp = createServer({ allowHalfOpen: true }, (socket) => this.#serveConnection(socket));
  #isClosed = false;

  constructor(containerId: string, sockets: DnsSockets, resolver: Resolver, log: Logger) {
    this.#containerId = containerId;
    this.#resolver = resolver;
    const failed = (error: Error): void => log.warn({ containerId, err: error }, 'dns socket failed');
    this.#udp.on('error', failed);
    this.#udp.on('message', (query, source) => {
      this.#send(this.#reply(query, source), source);
      batch ??= new DatagramBatch(batchSize, maxDatagram);
      batch.exchange(sockets.udp, (next, from) => this.#reply(next, from));
    });
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

  /** The answer to one datagram; undefined when there is none, or it comes later and goes out by itself. */
  #reply(query: Buffer, { address, port }: DatagramSource): Buffer | undefined {
    if (port === 0) return undefined; // made by hand: nobody can be answered there
    const answer = this.#resolver.answer(this.#containerId, query, 'udp');
    if (answer instanceof Promise) {
      void answer.then((message) => this.#send(message, { address, port }));
      return undefined;
    }
    if (answer === undefined || answer.length <= maxDatagram) return answer;
    this.#send(answer, { address, port });
    return undefined;
  }

  #send(message: Buffer | undefined, { address, port }: DatagramSource): void {
    // Whom the kernel cannot reach asked under a false address, and may do so as often as it likes: not worth a word.
    if (message !== undefined && !this.#isClosed) this.#udp.send(message, port, address, () => undefined);
  }

  #serveConnection(socket: Socket): void {
    this.#connections.add(socket);
    socket.on('close', () => this.#connections.delete(socket));
    serveConnection(socket, (query) => this.#resolver.answer(this.#containerId, query, 'tcp'));
  }
}
