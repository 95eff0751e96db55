import { createServer } from 'node:net';
import type { Server as NetServer, Socket } from 'node:net';
import type { Server as HttpServer } from 'node:http';

/** A reply that is ready: no handler, no waiting. */
export interface ReadyReply {
  /** Status line and headers but `Date`, ending with a line break. The body's length is among them. */
  readonly head: string;
  readonly body: Buffer;
}

/**
 * Reply to a GET of a target (path and query as sent), or undefined to have the request answered the ordinary way.
 * Called for every request: it must not throw for what a client sends, nor keep state of the connection.
 */
export type ReadyReplies = (target: string) => ReadyReply | undefined;

const END_OF_HEAD = Buffer.from('\r\n\r\n');
const MAX_HEAD_BYTES = 8 * 1024;
/** Anything that gives the request a body, ends the connection or changes its protocol belongs to the real parser. */
const NOT_PLAIN =
  /\r\n(?:content-length:[ \t]*(?!0\r\n)|transfer-encoding:|upgrade:|expect:|connection:[ \t]*(?!keep-alive\r\n))/i;
const REQUEST_LINE = /^GET (\/[!-~]*) HTTP\/1\.1\r\n/;
const HOST = /\r\nhost:/i;

/**
 * Put a listener in front of an HTTP server that answers what pollers ask all the time (`/_ping`, lists, inspects) from
 * ready bytes, straight on the connection: Node's HTTP machinery costs several times as much as such an answer.
 *
 * Only whole, plain GET requests are looked at. The first request that is anything else moves its connection to the HTTP
 * server for good, with every byte that was read, so the HTTP server sees a connection as if it had accepted it.
 */
export function createFastLane(http: HttpServer, replies: ReadyReplies): NetServer {
  return createServer({ allowHalfOpen: true, highWaterMark: 256 * 1024 }, (socket) => new Lane(http, socket, replies));
}

class Lane {
  readonly #http: HttpServer;
  readonly #socket: Socket;
  readonly #replies: ReadyReplies;
  /** The last request's bytes and target: pollers send the same again. */
  #lastHead: Buffer = Buffer.alloc(0);
  #lastTarget = '';

  constructor(http: HttpServer, socket: Socket, replies: ReadyReplies) {
    this.#http = http;
    this.#socket = socket;
    this.#replies = replies;
    socket.on('data', this.#onData);
    socket.on('drain', this.#onDrain);
    socket.on('end', this.#onEnd);
    socket.on('error', this.#onError);
  }

  readonly #onData = (chunk: Buffer): void => {
    const target = this.#targetOf(chunk);
    const reply = target === undefined ? undefined : this.#replies(target);
    if (reply === undefined) {
      this.#handOver(chunk);
      return;
    }
    const socket = this.#socket;
    socket.cork();
    socket.write(`${reply.head}Date: ${httpDate()}\r\n\r\n`, 'latin1');
    const takesMore = socket.write(reply.body);
    socket.uncork();
    if (!takesMore) socket.pause();
  };

  readonly #onDrain = (): void => {
    this.#socket.resume();
  };

  readonly #onEnd = (): void => {
    this.#socket.end();
  };

  readonly #onError = (): void => {
    this.#socket.destroy();
  };

  #targetOf(chunk: Buffer): string | undefined {
    if (chunk.equals(this.#lastHead)) return this.#lastTarget;
    const { length } = chunk;
    if (length > MAX_HEAD_BYTES || chunk.indexOf(END_OF_HEAD) !== length - END_OF_HEAD.length) return undefined;
    const head = chunk.toString('latin1');
    const target = REQUEST_LINE.exec(head)?.[1];
    if (target === undefined || !HOST.test(head) || NOT_PLAIN.test(head)) return undefined;
    this.#lastHead = Buffer.from(chunk);
    this.#lastTarget = target;
    return target;
  }

  #handOver(chunk: Buffer): void {
    const socket = this.#socket;
    socket.off('data', this.#onData).off('drain', this.#onDrain).off('end', this.#onEnd).off('error', this.#onError);
    socket.pause();
    this.#lastHead = Buffer.alloc(0);
    socket.unshift(chunk);
    this.#http.emit('connection', socket);
    socket.resume();
  }
}

let dateText = '';
let dateUntilMs = 0;

/** The `Date` header's value, made once a second. */
function httpDate(): string {
  const now = Date.now();
  if (now >= dateUntilMs) {
    dateText = new Date(now).toUTCString();
    dateUntilMs = now - (now % 1000) + 1000;
  }
  return dateText;
}
