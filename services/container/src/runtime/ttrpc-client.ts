import { connect, type Socket } from 'node:net';
import { shim } from '@flotilla/proto';
import { MessageDecoder, MessageType, encodeMessage } from './ttrpc-frames.js';

/** The peer answered with an error. Codes are gRPC's; runtime errors come as 2 (unknown) with the runtime's text. */
export class TtrpcError extends Error {
  readonly code: number;

  constructor(code: number, message: string) {
    super(message);
    this.name = 'TtrpcError';
    this.code = code;
  }
}

/** The connection broke, could not be made, or a call took too long: the peer may be dead. */
export class TtrpcUnavailable extends Error {
  override readonly name = 'TtrpcUnavailable';
}

export const TtrpcCode = { unknown: 2, notFound: 5, failedPrecondition: 9, unimplemented: 12 } as const;

interface PendingCall {
  resolve(payload: Uint8Array): void;
  reject(error: Error): void;
  timer: NodeJS.Timeout | undefined;
}

const MAX_PENDING_CALLS = 1024;

/** A connection to a ttrpc server; calls run side by side. The owner closes it. */
export class TtrpcClient {
  readonly #socket: Socket;
  readonly #metadata: shim.TtrpcKeyValue[];
  readonly #calls = new Map<number, PendingCall>();
  #nextStream = 1;
  #broken: TtrpcUnavailable | undefined;

  private constructor(socket: Socket, metadata: Readonly<Record<string, string>>) {
    this.#socket = socket;
    this.#metadata = Object.entries(metadata).map(([key, value]) => ({ key, value }));
    const decoder = new MessageDecoder();
    socket.on('data', (chunk: Buffer) => {
      try {
        decoder.decode(chunk, (stream, type, body) => {
          if (type === MessageType.response) this.#settle(stream, body);
        });
      } catch (error) {
        this.#break(new TtrpcUnavailable('ttrpc: malformed answer', { cause: error }));
      }
    });
    socket.on('error', (error) => this.#break(new TtrpcUnavailable(`ttrpc: ${error.message}`, { cause: error })));
    socket.on('close', () => this.#break(new TtrpcUnavailable('ttrpc: connection closed')));
  }

  /** @throws TtrpcUnavailable when nobody listens at `path`. */
  static connect(path: string, metadata: Readonly<Record<string, string>>): Promise<TtrpcClient> {
    return new Promise((resolve, reject) => {
      const socket = connect(path);
      const onError = (error: Error) => {
        reject(new TtrpcUnavailable(`ttrpc: ${error.message}`, { cause: error }));
      };
      socket.once('error', onError);
      socket.once('connect', () => {
        socket.off('error', onError);
        resolve(new TtrpcClient(socket, metadata));
      });
    });
  }

  /**
   * One unary call.
   * @throws TtrpcError for the peer's error; TtrpcUnavailable when the connection breaks or `timeoutMs` (0: no limit) pass.
   */
  call(service: string, method: string, payload: Uint8Array, timeoutMs: number): Promise<Uint8Array> {
    if (this.#broken !== undefined) return Promise.reject(this.#broken);
    if (this.#calls.size >= MAX_PENDING_CALLS)
      return Promise.reject(new TtrpcUnavailable('ttrpc: too many open calls'));
    const stream = this.#nextStream;
    this.#nextStream = (this.#nextStream + 2) % 0x7fff_ffff;
    const request = shim.TtrpcRequest.encode({
      service,
      method,
      payload: Buffer.from(payload.buffer, payload.byteOffset, payload.byteLength),
      timeoutNano: BigInt(timeoutMs) * 1_000_000n,
      metadata: this.#metadata,
    }).finish();
    return new Promise((resolve, reject) => {
      const timer =
        timeoutMs === 0
          ? undefined
          : setTimeout(() => {
              this.#calls.delete(stream);
              reject(new TtrpcUnavailable(`ttrpc: ${method} took longer than ${timeoutMs} ms`));
            }, timeoutMs);
      this.#calls.set(stream, { resolve, reject, timer });
      this.#socket.write(encodeMessage(stream, MessageType.request, request));
    });
  }

  /** Whether calls can still be made. */
  get isOpen(): boolean {
    return this.#broken === undefined;
  }

  /** Open calls fail with TtrpcUnavailable. */
  close(): void {
    this.#break(new TtrpcUnavailable('ttrpc: connection closed'));
  }

  #settle(stream: number, body: Buffer): void {
    const call = this.#calls.get(stream);
    if (call === undefined) return;
    // What cannot be decoded breaks the connection, this call included.
    const { status, payload } = shim.TtrpcResponse.decode(body);
    this.#calls.delete(stream);
    clearTimeout(call.timer);
    if (status !== undefined && status.code !== 0) call.reject(new TtrpcError(status.code, status.message));
    else call.resolve(payload);
  }

  #break(error: TtrpcUnavailable): void {
    if (this.#broken !== undefined) return;
    this.#broken = error;
    this.#socket.destroy();
    const calls = [...this.#calls.values()];
    this.#calls.clear();
    for (const call of calls) {
      clearTimeout(call.timer);
      call.reject(error);
    }
  }
}
