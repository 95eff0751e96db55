import { randomInt } from 'node:crypto';
import { createSocket } from 'node:dgram';
import { connect } from 'node:net';
import { familyOf } from '@flotilla/netlink';

const PORT = 53;
const tryTimeoutMs = 4000;
const maxInFlight = 1024;

/** Passes queries on to other name servers. */
export class Forwarder {
  #inFlight = 0;
  readonly #port: number;

  /** @param port where the other name servers listen; only tests have another than 53 */
  constructor(port = PORT) {
    this.#port = port;
  }

  /**
   * The first answer that any of the servers gives, asked one after the other; undefined when none does, or when too many
   * queries are on the way already.
   */
  async ask(query: Buffer, servers: readonly string[], transport: 'udp' | 'tcp'): Promise<Buffer | undefined> {
    if (this.#inFlight >= maxInFlight) return undefined;
    this.#inFlight++;
    try {
      for (const server of servers) {
        try {
          return await (transport === 'udp' ? this.#askUdp(query, server) : this.#askTcp(query, server));
        } catch {
          continue; // refused, unreachable or silent: the next one
        }
      }
      return undefined;
    } finally {
      this.#inFlight--;
    }
  }

  /** From a port and with an id of its own per query, so that answers cannot be guessed from outside. */
  #askUdp(query: Buffer, server: string): Promise<Buffer> {
    return new Promise((resolve, reject) => {
      const socket = createSocket(familyOf(server) === 6 ? 'udp6' : 'udp4');
      const id = randomInt(0x10000);
      const finish = (settle: () => void): void => {
        clearTimeout(timer);
        socket.close();
        settle();
      };
      const timer = setTimeout(() => finish(() => reject(new Error('no answer'))), tryTimeoutMs);
      socket.on('error', (error) => finish(() => reject(error)));
      socket.on('message', (message) => {
        if (message.length >= 12 && message.readUInt16BE(0) === id)
          finish(() => resolve(withId(message, query.readUInt16BE(0))));
      });
      socket.connect(this.#port, server, () => socket.send(withId(query, id)));
    });
  }

  #askTcp(query: Buffer, server: string): Promise<Buffer> {
    return new Promise((resolve, reject) => {
      const socket = connect({ host: server, port: this.#port, timeout: tryTimeoutMs });
      let received = Buffer.alloc(0);
      const fail = (error: Error): void => {
        socket.destroy();
        reject(error);
      };
      socket.on('error', fail);
      socket.on('timeout', () => fail(new Error('no answer')));
      socket.on('close', () => fail(new Error('connection closed')));
      socket.on('connect', () => socket.end(framed(query)));
      socket.on('data', (data) => {
        received = Buffer.concat([received, data]);
        if (received.length < 2 || received.length < 2 + received.readUInt16BE(0)) return;
        resolve(received.subarray(2, 2 + received.readUInt16BE(0)));
        socket.destroy();
      });
    });
  }
}

/** A message as TCP carries it: two bytes of length in front. */
export function framed(message: Buffer): Buffer {
  const length = Buffer.alloc(2);
  length.writeUInt16BE(message.length);
  return Buffer.concat([length, message]);
}

function withId(message: Buffer, id: number): Buffer {
  const copy = Buffer.from(message);
  copy.writeUInt16BE(id, 0);
  return copy;
}
