import type { Duplex } from 'node:stream';
import { FrameDecoder, apiVersion } from '@flotilla/docker-api';
import { cancelled, invalidArgument, permissionDenied } from '@flotilla/errors';
import { type WebSocket, WebSocketServer, createWebSocketStream } from 'ws';
import type { ApiCall } from '../http/api-call.js';
import { type ClientStream, connectionOf } from './client-stream.js';

/** The largest message that a client may send: golang.org/x/net/websocket DefaultMaxPayloadBytes, which dockerd has. */
const MAX_MESSAGE_BYTES = 32 * 1024 * 1024;
/** Since this version output comes in binary messages, before in text ones. */
const BINARY_SINCE = apiVersion(1, 28);
const NORMAL_CLOSURE = 1000;

const handshakes = new WebSocketServer({
  noServer: true,
  clientTracking: false,
  perMessageDeflate: false,
  maxPayload: MAX_MESSAGE_BYTES,
});

/** Attached streams over a WebSocket: messages hold the raw bytes, those of both output streams in turn. */
export class WebSocketClientStream implements ClientStream {
  readonly #call: ApiCall;
  readonly #frames = new FrameDecoder();
  readonly #opened: Promise<WebSocket>;
  #onOpened: (socket: WebSocket) => void = () => undefined;
  #socket: WebSocket | undefined;
  #messages: Duplex | undefined;
  #isTty = false;

  /**
   * @throws EngineError `invalidArgument` for what is no handshake; `permissionDenied` for a page of another site: browsers let
   * any page open a WebSocket to any address, and say only in `Origin` whose it is
   */
  constructor(call: ApiCall) {
    const { headers } = call.req;
    if (headers.upgrade?.toLowerCase() !== 'websocket' || headers['sec-websocket-key'] === undefined) {
      throw invalidArgument('not a WebSocket handshake: use POST /containers/{id}/attach');
    }
    if (headers.origin !== undefined && !isOwnOrigin(headers.origin, headers.host)) {
      throw permissionDenied(`WebSocket requests from ${headers.origin} are not allowed`);
    }
    this.#call = call;
    this.#opened = new Promise((resolve) => (this.#onOpened = resolve));
  }

  async open(tty: boolean): Promise<void> {
    this.#isTty = tty;
    const { req, res, signal } = this.#call;
    const { socket } = connectionOf(this.#call);
    if (res.socket !== null) res.detachSocket(res.socket);
    const accepted = new Promise<WebSocket>((resolve, reject) => {
      // A handshake that is refused is answered and closed by the library.
      socket.once('close', () => reject(cancelled('the client went away')));
      handshakes.handleUpgrade(req, socket, Buffer.alloc(0), resolve);
    });
    this.#socket = await accepted;
    this.#socket.on('error', () => undefined);
    if (signal.aborted) this.#socket.terminate();
    this.#onOpened(this.#socket);
  }

  async *input(): AsyncGenerator<Buffer> {
    const socket = await this.#opened;
    const messages = (this.#messages = createWebSocketStream(socket, { allowHalfOpen: true }));
    messages.on('error', () => undefined);
    try {
      // Leaving early leaves the connection to `end`.
      yield* messages.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>;
    } catch {
      // A connection that breaks ends the input like an orderly close.
    }
  }

  async write(output: Uint8Array): Promise<void> {
    if (this.#isTty) {
      await this.#send(output);
      return;
    }
    for (const { payload } of this.#frames.decode(output)) await this.#send(payload);
  }

  tell(line: string): Promise<void> {
    return this.#send(Buffer.from(`${line}\r\n`));
  }

  end(): void {
    this.#socket?.close(NORMAL_CLOSURE);
    // The client's own close comes behind what nobody wants any more.
    this.#messages?.resume();
  }

  async #send(bytes: Uint8Array): Promise<void> {
    const socket = await this.#opened;
    await new Promise<void>((resolve, reject) => {
      socket.send(bytes, { binary: this.#call.version >= BINARY_SINCE }, (error) => {
        if (error instanceof Error) reject(cancelled('the client went away', { cause: error }));
        else resolve();
      });
    });
  }
}

function isOwnOrigin(origin: string, host: string | undefined): boolean {
  return URL.canParse(origin) && new URL(origin).host === host;
}
