import { StdStream, encodeFrame } from '@flotilla/docker-api';
import { internal } from '@flotilla/errors';
import type { ApiCall } from '../http/api-call.js';
import type { HijackedConnection } from '../http/hijack.js';
import { streamContentType } from './container-routes.js';

/** The client's end of an attached stream. */
export interface ClientStream {
  /** Answer the request: what follows is the stream. Until then an error is an ordinary reply. */
  open(tty: boolean): Promise<void>;
  /** What the client sends, until it closes its side or leaves. */
  input(): AsyncIterable<Buffer>;
  /**
   * Pass on what the owner sent: frames, or raw bytes of a terminal. Settles when the client takes more.
   * @throws EngineError `cancelled` when the client is gone
   */
  write(output: Uint8Array): Promise<void>;
  /** Tell the user something of our own, in a line. */
  tell(line: string): Promise<void>;
  /** Close our side after everything written. */
  end(): void;
}

/** The connection that a request came by and that its handler took over. */
export const connectionOf = (call: ApiCall): HijackedConnection => {
  if (call.connection === undefined) throw internal('the connection was not taken over');
  return call.connection;
};

/** The raw form: after the reply's head (101, or 200 for clients that did not ask for an upgrade) the connection is the stream. */
export class RawClientStream implements ClientStream {
  readonly #call: ApiCall;
  readonly #connection: HijackedConnection;
  #isTty = false;

  constructor(call: ApiCall) {
    this.#call = call;
    this.#connection = connectionOf(call);
  }

  async open(tty: boolean): Promise<void> {
    this.#isTty = tty;
    const { res } = this.#call;
    if (res.socket !== null) res.detachSocket(res.socket);
    const headers = this.#connection.wantsUpgrade
      ? [
          'HTTP/1.1 101 UPGRADED',
          `Content-Type: ${streamContentType(this.#call, tty)}`,
          'Connection: Upgrade',
          'Upgrade: tcp',
        ]
      : ['HTTP/1.1 200 OK', 'Content-Type: application/vnd.docker.raw-stream'];
    const base = this.#call.headers();
    for (let i = 0; i + 1 < base.length; i += 2) headers.push(`${base[i] ?? ''}: ${base[i + 1] ?? ''}`);
    await this.#connection.write(`${headers.join('\r\n')}\r\n\r\n`, this.#call.signal);
  }

  input(): AsyncIterable<Buffer> {
    return this.#connection.input();
  }

  write(output: Uint8Array): Promise<void> {
    return this.#connection.write(output, this.#call.signal);
  }

  tell(line: string): Promise<void> {
    const bytes = Buffer.from(`${line}\r\n`);
    return this.write(this.#isTty ? bytes : encodeFrame(StdStream.stderr, bytes));
  }

  end(): void {
    this.#connection.end();
  }
}
