import { request } from 'node:http';
import type { IncomingHttpHeaders } from 'node:http';
import { connect } from 'node:net';
import type { Socket } from 'node:net';

/** A whole reply. */
export interface Reply {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly text: string;
  /** The body as JSON. */
  readonly json: unknown;
}

/** One request over a unix socket. Objects are sent as JSON. */
export function send(
  socketPath: string,
  method: string,
  path: string,
  body?: unknown,
  headers: Record<string, string> = {},
): Promise<Reply> {
  return new Promise((resolve, reject) => {
    const isRaw = typeof body === 'string' || body instanceof Uint8Array;
    const bytes = body === undefined ? undefined : isRaw ? body : JSON.stringify(body);
    const req = request(
      {
        socketPath,
        method,
        path,
        agent: false,
        headers: { ...(bytes === undefined || isRaw ? {} : { 'content-type': 'application/json' }), ...headers },
      },
      (res) => {
        const chunks: Buffer[] = [];
        res.on('data', (chunk: Buffer) => chunks.push(chunk));
        res.on('error', reject);
        res.on('end', () => {
          const text = Buffer.concat(chunks).toString('latin1');
          resolve({
            status: res.statusCode ?? 0,
            headers: res.headers,
            text,
            get json() {
              return JSON.parse(text) as unknown;
            },
          });
        });
      },
    );
    req.on('error', reject);
    req.end(bytes);
  });
}

/** A raw connection that collects what comes. */
export class RawConnection {
  readonly socket: Socket;
  received = '';
  ended = false;

  constructor(socketPath: string) {
    this.socket = connect({ path: socketPath, allowHalfOpen: true });
    this.socket.on('data', (chunk: Buffer) => (this.received += chunk.toString('latin1')));
    this.socket.on('end', () => (this.ended = true));
    this.socket.on('error', () => (this.ended = true));
  }

  write(text: string): void {
    this.socket.write(Buffer.from(text, 'latin1'));
  }

  /** Wait until the text has come. */
  async until(claim: (received: string) => boolean): Promise<string> {
    const deadline = Date.now() + 10_000;
    while (!claim(this.received)) {
      if (Date.now() > deadline || (this.ended && !claim(this.received)))
        throw new Error(`never came, only ${JSON.stringify(this.received)}`);
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
    return this.received;
  }

  /** Wait until the other side has closed, and return everything. */
  async all(): Promise<string> {
    const deadline = Date.now() + 10_000;
    while (!this.ended) {
      if (Date.now() > deadline) throw new Error(`not closed; received ${JSON.stringify(this.received)}`);
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
    this.socket.destroy();
    return this.received;
  }

  close(): void {
    this.socket.destroy();
  }
}
