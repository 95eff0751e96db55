import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { closeSync, rmSync } from 'node:fs';
import { createServer, type ListenOptions, type Server, type Socket } from 'node:net';
import { createServer as createTlsServer, type TlsOptions } from 'node:tls';
import { bind, checkResult } from '@flotilla/sys';

/** A server that keeps what it is sent. */
export interface LogReceiver extends AsyncDisposable {
  readonly port: number;
  /** Everything so far, of all connections. */
  text(): string;
  bytes(): Buffer;
  /** How many bytes there are. */
  size(): number;
  /** One for each datagram, or for each piece of a stream. */
  readonly pieces: readonly Buffer[];
}

export interface StreamReceiverOptions {
  /** Where to listen; absent: a free port of 127.0.0.1. */
  listen?: ListenOptions;
  tls?: TlsOptions;
  /** Answers to a piece that came. */
  answer?: (piece: Buffer, socket: Socket) => void;
  /** Read nothing: the senders' buffers fill up. */
  isDeaf?: boolean;
}

/** Receives over TCP, TLS or a Unix socket. Disposing it closes its connections. */
export async function receiveStreams(options: StreamReceiverOptions = {}): Promise<LogReceiver> {
  const pieces: Buffer[] = [];
  const sockets = new Set<Socket>();
  const accept = (socket: Socket): void => {
    sockets.add(socket);
    socket.on('error', () => undefined);
    socket.on('close', () => sockets.delete(socket));
    if (options.isDeaf === true) return;
    socket.on('data', (piece: Buffer) => {
      pieces.push(piece);
      options.answer?.(piece, socket);
    });
  };
  const server: Server = options.tls ? createTlsServer(options.tls, accept) : createServer(accept);
  server.listen(options.listen ?? { host: '127.0.0.1', port: 0 });
  await once(server, 'listening');
  const address = server.address();
  return {
    ...kept(pieces),
    port: typeof address === 'object' && address !== null ? address.port : 0,
    async [Symbol.asyncDispose]() {
      const closed = once(server, 'close');
      server.close();
      for (const socket of sockets) socket.destroy();
      await closed;
    },
  };
}

/** Receives UDP datagrams at a free port of 127.0.0.1. */
export async function receiveDatagrams(): Promise<LogReceiver> {
  const pieces: Buffer[] = [];
  const socket = createSocket('udp4');
  socket.on('message', (piece) => pieces.push(piece));
  socket.bind(0, '127.0.0.1');
  await once(socket, 'listening');
  return {
    ...kept(pieces),
    port: socket.address().port,
    async [Symbol.asyncDispose]() {
      const closed = once(socket, 'close');
      socket.close();
      await closed;
    },
  };
}

function kept(pieces: Buffer[]): Pick<LogReceiver, 'text' | 'bytes' | 'size' | 'pieces'> {
  const bytes = () => Buffer.concat(pieces);
  const size = () => pieces.reduce((sum, { length }) => sum + length, 0);
  return { pieces, bytes, size, text: () => bytes().toString() };
}

const socketCall = bind('int socket(int family, int type, int protocol)');
const bindCall = bind('int bind(int fd, const void *address, uint32_t size)');
const recvCall = bind('int64_t recv(int fd, _Out_ uint8_t *data, size_t size, int flags)');
const AF_UNIX = 1;
const SOCK_DGRAM = 2;
const MSG_DONTWAIT = 0x40;

/** Receives Unix datagrams at `path`. What waits in the socket's queue is taken when the receiver is asked for it. */
export function receiveUnixDatagrams(path: string): LogReceiver {
  const fd = checkResult(socketCall(AF_UNIX, SOCK_DGRAM, 0), 'socket');
  const address = Buffer.concat([Buffer.from([AF_UNIX, 0]), Buffer.from(`${path}\0`)]);
  checkResult(bindCall(fd, address, address.length), `bind ${path}`);
  const pieces: Buffer[] = [];
  const buffer = Buffer.alloc(256 * 1024);
  const take = (): Buffer[] => {
    for (;;) {
      const length = recvCall(fd, buffer, buffer.length, MSG_DONTWAIT);
      if (length < 0) return pieces;
      pieces.push(Buffer.from(buffer.subarray(0, length)));
    }
  };
  return {
    port: 0,
    get pieces() {
      return take();
    },
    bytes: () => Buffer.concat(take()),
    text: () => Buffer.concat(take()).toString(),
    size: () => Buffer.concat(take()).length,
    [Symbol.asyncDispose]() {
      closeSync(fd);
      rmSync(path, { force: true });
      return Promise.resolve();
    },
  };
}
