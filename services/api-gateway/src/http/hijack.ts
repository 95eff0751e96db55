import { once } from 'node:events';
import type { IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';
import { cancelled, invalidArgument } from '@flotilla/errors';
import { ChunkedBody } from './chunked-body.js';

const MAX_CHUNKED_HEADER = 16 * 1024;
const MAX_PIECE_BYTES = 256 * 1024;
const LINGER_MS = 10_000;
const WAKING_EVENTS = ['readable', 'end', 'close'] as const;

/**
 * A connection whose HTTP parser is gone: after the request's headers the socket is ours.
 * The body of the request, when it has one, comes first; everything after it is the client's raw input.
 */
export class HijackedConnection {
  readonly socket: Socket;
  readonly #req: IncomingMessage;
  #isEnding = false;
  #wake: () => void = () => undefined;

  constructor(req: IncomingMessage, socket: Socket, head: Buffer) {
    this.socket = socket;
    this.#req = req;
    // A broken connection shows up as the end of the input and in failing writes.
    socket.on('error', () => undefined);
    if (head.length > 0) socket.unshift(head);
  }

  /** Whether the client asked for 101 instead of 200. */
  get wantsUpgrade(): boolean {
    return this.#req.headers.upgrade !== undefined;
  }

  /** Read the request's body, by its length or chunks, and leave what follows it in the socket. */
  async readBody(limit: number): Promise<string> {
    if (/\bchunked\b/i.test(this.#req.headers['transfer-encoding'] ?? '')) return this.#readChunked(limit);
    const length = Number(this.#req.headers['content-length'] ?? 0);
    if (length === 0) return '';
    if (length > limit) throw invalidArgument('http: request body too large');
    const chunks: Buffer[] = [];
    let missing = length;
    for await (const chunk of this.input()) {
      chunks.push(chunk.subarray(0, missing));
      if (chunk.length > missing) this.socket.unshift(chunk.subarray(missing));
      missing -= Math.min(missing, chunk.length);
      if (missing === 0) break;
    }
    if (missing > 0) throw invalidArgument('invalid JSON: unexpected EOF');
    return Buffer.concat(chunks).toString('utf8');
  }

  /**
   * What the client sends, in pieces of at most 256 KiB, until it closes its side or {@link end} is called. A connection
   * that breaks ends the input like an orderly close. Leaving the loop early leaves the rest in the connection.
   */
  async *input(): AsyncGenerator<Buffer> {
    const { socket } = this;
    while (!this.#isEnding) {
      const chunk = socket.read() as Buffer | null;
      if (chunk !== null) {
        for (let offset = 0; offset < chunk.length; offset += MAX_PIECE_BYTES)
          yield chunk.subarray(offset, offset + MAX_PIECE_BYTES);
        continue;
      }
      if (socket.readableEnded || socket.destroyed) return;
      await this.#readable();
    }
  }

  /**
   * Send bytes and wait until the connection takes more.
   * @throws EngineError `cancelled` when the client is gone
   */
  async write(bytes: Uint8Array | string, signal: AbortSignal): Promise<void> {
    if (this.socket.destroyed) throw cancelled('the client went away');
    if (this.socket.write(bytes)) return;
    await once(this.socket, 'drain', { signal }).catch((error: unknown) => {
      throw cancelled('the client went away', { cause: error });
    });
  }

  /**
   * Close our side after everything written. The connection goes when the client has closed its side, or a while after it has
   * taken everything: one that reads slowly loses nothing.
   */
  end(): void {
    const { socket } = this;
    if (socket.destroyed || this.#isEnding) return;
    this.#isEnding = true;
    this.#wake();
    socket.end(() => {
      if (socket.destroyed) return;
      const timer = setTimeout(() => socket.destroy(), LINGER_MS);
      timer.unref();
      socket.once('close', () => clearTimeout(timer));
    });
    if (socket.readableEnded) return;
    // Input that nobody wants any more is read away: closing over it would reset the connection under the last output.
    socket.once('end', () => socket.destroySoon());
    socket.resume();
  }

  #readable(): Promise<void> {
    const { socket } = this;
    return new Promise((resolve) => {
      const wake = (): void => {
        for (const event of WAKING_EVENTS) socket.off(event, wake);
        this.#wake = () => undefined;
        resolve();
      };
      this.#wake = wake;
      for (const event of WAKING_EVENTS) socket.on(event, wake);
    });
  }

  async #readChunked(limit: number): Promise<string> {
    const body = new ChunkedBody();
    for await (const chunk of this.input()) {
      const rest = body.push(chunk);
      if (body.length > limit + MAX_CHUNKED_HEADER) throw invalidArgument('http: request body too large');
      if (rest !== undefined) {
        if (rest.length > 0) this.socket.unshift(rest);
        return body.text();
      }
    }
    throw invalidArgument('invalid JSON: unexpected EOF');
  }
}
