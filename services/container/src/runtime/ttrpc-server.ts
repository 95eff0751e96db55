import { rmSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { shim } from '@flotilla/proto';
import { TtrpcCode } from './ttrpc-client.js';
import { MessageDecoder, MessageType, encodeMessage } from './ttrpc-frames.js';

/** Answers one call with the encoded response. What it throws becomes the caller's error. */
export type TtrpcHandler = (service: string, method: string, payload: Uint8Array) => Promise<Uint8Array> | Uint8Array;

/** A small unary ttrpc server on a unix socket. A connection that breaks the protocol is cut. */
export class TtrpcServer {
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();

  private constructor(server: Server) {
    this.#server = server;
  }

  /** Listens at `path`, over what an earlier process left there. */
  static listen(path: string, handler: TtrpcHandler): Promise<TtrpcServer> {
    rmSync(path, { force: true });
    const server = createServer();
    const listening = new TtrpcServer(server);
    server.on('connection', (socket) => listening.#serve(socket, handler));
    return new Promise((resolve, reject) => {
      server.once('error', reject);
      server.listen(path, () => {
        server.off('error', reject);
        resolve(listening);
      });
    });
  }

  async close(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }

  #serve(socket: Socket, handler: TtrpcHandler): void {
    this.#sockets.add(socket);
    const decoder = new MessageDecoder();
    socket.on('error', () => socket.destroy());
    socket.on('close', () => this.#sockets.delete(socket));
    socket.on('data', (chunk: Buffer) => {
      try {
        decoder.decode(chunk, (stream, type, body) => {
          if (type === MessageType.request) void answer(socket, stream, shim.TtrpcRequest.decode(body), handler);
        });
      } catch {
        socket.destroy();
      }
    });
  }
}

async function answer(
  socket: Socket,
  stream: number,
  request: shim.TtrpcRequest,
  handler: TtrpcHandler,
): Promise<void> {
  let response: shim.TtrpcResponse;
  try {
    const payload = await handler(request.service, request.method, request.payload);
    response = { status: undefined, payload: Buffer.from(payload) };
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    response = { status: { code: TtrpcCode.unknown, message }, payload: Buffer.alloc(0) };
  }
  if (socket.writable) {
    socket.write(encodeMessage(stream, MessageType.response, shim.TtrpcResponse.encode(response).finish()));
  }
}
