import { createSocket, type Socket as UdpSocket } from 'node:dgram';
import { lookup } from 'node:dns/promises';
import { readFileSync } from 'node:fs';
import { connect, isIP, type Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { connect as connectTls } from 'node:tls';
import { hasCode, UnixDatagramSocket } from '@flotilla/sys';
import type { RemoteAddress, TlsFiles } from '../options/remote-config.js';

const CONNECT_TIMEOUT_MS = 10_000;
const FULL_QUEUE_WAIT_MS = 20;

/** Carries messages to an address; connects when it is needed, and anew after a failure. */
export interface Transport {
  /** Settles when the kernel has taken the messages. One that is too large for a datagram is left out. */
  write(messages: readonly Buffer[], signal: AbortSignal): Promise<void>;
  close(): void;
}

export function openTransport(address: RemoteAddress, tls?: TlsFiles): Transport & Partial<Answering> {
  switch (address.proto) {
    case 'udp':
      return new UdpTransport(address);
    case 'unixgram':
      return new UnixDatagramTransport(address.path);
    default:
      return new StreamTransport(address, tls);
  }
}

/** A transport over which the other side answers. */
export interface Answering {
  /** Resolves with what comes next; rejects when the connection ends or after `timeoutMs`. */
  answer(timeoutMs: number, signal: AbortSignal): Promise<Buffer>;
}

/** TCP, TLS, or a Unix stream socket. */
export class StreamTransport implements Transport, Answering {
  readonly #address: RemoteAddress;
  readonly #tls: TlsFiles | undefined;
  #socket: Socket | undefined;
  #answers: Buffer[] = [];
  #onAnswer: (() => void) | undefined;

  constructor(address: RemoteAddress, tls?: TlsFiles) {
    this.#address = address;
    this.#tls = tls;
  }

  async write(messages: readonly Buffer[], signal: AbortSignal): Promise<void> {
    const socket = this.#socket ?? (await this.#connect(signal));
    await new Promise<void>((resolve, reject) => {
      const settle = (error?: Error | null) => {
        socket.off('close', onClose);
        signal.removeEventListener('abort', onAbort);
        if (error === undefined || error === null) resolve();
        else reject(error);
      };
      const onClose = () => settle(new Error('the connection was closed'));
      const onAbort = () => settle(new Error('aborted'));
      socket.on('close', onClose);
      signal.addEventListener('abort', onAbort, { once: true });
      socket.write(Buffer.concat(messages), settle);
      if (signal.aborted) onAbort();
    }).catch((error: unknown) => {
      this.close();
      throw error;
    });
  }

  async answer(timeoutMs: number, signal: AbortSignal): Promise<Buffer> {
    const limit = AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)]);
    while (this.#answers.length === 0) {
      if (limit.aborted) throw new Error('no answer');
      if (this.#socket === undefined) throw new Error('the connection was closed');
      await new Promise<void>((resolve) => {
        this.#onAnswer = resolve;
        limit.addEventListener('abort', () => resolve(), { once: true });
      });
    }
    return Buffer.concat(this.#answers.splice(0));
  }

  close(): void {
    this.#socket?.destroy();
    this.#socket = undefined;
    this.#answers = [];
  }

  async #connect(signal: AbortSignal): Promise<Socket> {
    const socket = this.#open();
    const limit = AbortSignal.any([signal, AbortSignal.timeout(CONNECT_TIMEOUT_MS)]);
    try {
      await new Promise<void>((resolve, reject) => {
        socket.once(this.#address.proto === 'tcp+tls' ? 'secureConnect' : 'connect', resolve);
        socket.once('error', reject);
        const onAbort = () => reject(new Error('no connection in time'));
        limit.addEventListener('abort', onAbort, { once: true });
        if (limit.aborted) onAbort();
      });
    } catch (error) {
      socket.on('error', () => undefined);
      socket.destroy();
      throw error;
    }
    socket.on('error', () => socket.destroy());
    socket.on('close', () => {
      if (this.#socket === socket) this.#socket = undefined;
      this.#onAnswer?.();
    });
    // Answers to nothing that was asked are a receiver's mistake: at most one block of them is kept.
    socket.on('data', (data: Buffer) => {
      this.#answers = [...this.#answers.slice(-1), data];
      this.#onAnswer?.();
    });
    this.#answers = [];
    this.#socket = socket;
    return socket;
  }

  #open(): Socket {
    const address = this.#address;
    if ('path' in address) return connect({ path: address.path });
    const { host, port, proto } = address;
    if (proto !== 'tcp+tls') return connect({ host, port, noDelay: true });
    const { ca, cert, key, skipsVerify = false } = this.#tls ?? {};
    return connectTls({
      host,
      port,
      rejectUnauthorized: !skipsVerify,
      ...(isIP(host) === 0 ? { servername: host } : {}),
      ...(ca === undefined ? {} : { ca: readFileSync(ca) }),
      ...(cert === undefined || key === undefined ? {} : { cert: readFileSync(cert), key: readFileSync(key) }),
    });
  }
}

class UdpTransport implements Transport {
  readonly #address: { host: string; port: number };
  #socket: UdpSocket | undefined;
  #host = '';

  constructor(address: { host: string; port: number }) {
    this.#address = address;
  }

  async write(messages: readonly Buffer[], signal: AbortSignal): Promise<void> {
    const socket = this.#socket ?? (await this.#open());
    for (const message of messages) {
      if (signal.aborted) throw new Error('aborted');
      await new Promise<void>((resolve, reject) => {
        socket.send(message, this.#address.port, this.#host, (error) => {
          if (error === null || hasCode(error, 'EMSGSIZE')) resolve();
          else reject(error);
        });
      }).catch((error: unknown) => {
        this.close();
        throw error;
      });
    }
  }

  close(): void {
    this.#socket?.close();
    this.#socket = undefined;
  }

  async #open(): Promise<UdpSocket> {
    const { address, family } = await lookup(this.#address.host);
    const socket = createSocket(family === 6 ? 'udp6' : 'udp4');
    socket.on('error', () => undefined);
    this.#host = address;
    this.#socket = socket;
    return socket;
  }
}

class UnixDatagramTransport implements Transport {
  readonly #path: string;
  #socket: UnixDatagramSocket | undefined;

  constructor(path: string) {
    this.#path = path;
  }

  async write(messages: readonly Buffer[], signal: AbortSignal): Promise<void> {
    try {
      const socket = (this.#socket ??= new UnixDatagramSocket(this.#path));
      for (const message of messages) {
        while (!this.#sent(socket, message)) await delay(FULL_QUEUE_WAIT_MS, undefined, { signal });
      }
    } catch (error) {
      this.close();
      throw error;
    }
  }

  close(): void {
    this.#socket?.close();
    this.#socket = undefined;
  }

  #sent(socket: UnixDatagramSocket, message: Buffer): boolean {
    try {
      return socket.send(message);
    } catch (error) {
      if (hasCode(error, 'EMSGSIZE')) return true;
      throw error;
    }
  }
}
