import { connect, type Socket } from 'node:net';

/** Status and body of one answer. */
export interface Answer {
  status: number;
  body: Buffer;
}

const END_OF_HEADERS = Buffer.from('\r\n\r\n');
const LAST_CHUNK = Buffer.from('0\r\n\r\n');

/**
 * One keep-alive HTTP/1.1 connection over a unix socket, one request at a time. It parses only what the two engines send
 * (Content-Length or chunked), so that the client costs as little as possible beside the server that is measured.
 */
export class HttpConnection {
  readonly #socket: Socket;
  #received: Buffer = Buffer.alloc(0);
  #waiting: { resolve: (answer: Answer) => void; reject: (error: Error) => void } | undefined;

  constructor(path: string) {
    this.#socket = connect(path);
    this.#socket.on('data', (chunk: Buffer) => {
      this.#received = this.#received.length === 0 ? chunk : Buffer.concat([this.#received, chunk]);
      this.#deliver();
    });
    const fail = (error?: Error) => this.#waiting?.reject(error ?? new Error('connection closed'));
    this.#socket.on('error', fail);
    this.#socket.on('close', () => fail());
  }

  request(method: string, path: string, body?: unknown): Promise<Answer> {
    const payload = body === undefined ? '' : JSON.stringify(body);
    return new Promise((resolve, reject) => {
      this.#waiting = { resolve, reject };
      this.#socket.write(
        `${method} ${path} HTTP/1.1\r\nHost: engine\r\nContent-Type: application/json\r\nContent-Length: ${Buffer.byteLength(payload)}\r\n\r\n${payload}`,
      );
    });
  }

  close(): void {
    this.#waiting = undefined;
    this.#socket.destroy();
  }

  #deliver(): void {
    const headerEnd = this.#received.indexOf(END_OF_HEADERS);
    if (headerEnd < 0 || this.#waiting === undefined) return;
    const head = this.#received.toString('latin1', 0, headerEnd).toLowerCase();
    const status = Number(head.slice(9, 12));
    const start = headerEnd + 4;
    const length = /\r\ncontent-length: (\d+)/.exec(head)?.[1];
    let body: Buffer;
    if (length !== undefined) {
      if (this.#received.length < start + Number(length)) return;
      body = this.#received.subarray(start, start + Number(length));
    } else if (head.includes('transfer-encoding: chunked')) {
      if (!this.#received.subarray(-5).equals(LAST_CHUNK)) return;
      body = unchunk(this.#received.subarray(start));
    } else {
      body = Buffer.alloc(0);
    }
    const waiting = this.#waiting;
    this.#waiting = undefined;
    this.#received = Buffer.alloc(0);
    waiting.resolve({ status, body });
  }
}

function unchunk(bytes: Buffer): Buffer {
  const parts: Buffer[] = [];
  let at = 0;
  for (;;) {
    const lineEnd = bytes.indexOf('\r\n', at);
    const size = parseInt(bytes.toString('latin1', at, lineEnd), 16);
    if (size === 0 || Number.isNaN(size)) return Buffer.concat(parts);
    parts.push(bytes.subarray(lineEnd + 2, lineEnd + 2 + size));
    at = lineEnd + 2 + size + 2;
  }
}

/** Requests per second of one GET over `connections` connections for about `seconds`. Throws on any status but 200. */
export async function requestsPerSecond(
  socket: string,
  path: string,
  connections: number,
  seconds: number,
): Promise<number> {
  const until = performance.now() + seconds * 1000;
  const started = performance.now();
  const counts = await Promise.all(
    Array.from({ length: connections }, async () => {
      const connection = new HttpConnection(socket);
      let count = 0;
      try {
        while (performance.now() < until) {
          const { status } = await connection.request('GET', path);
          if (status !== 200) throw new Error(`GET ${path}: ${status}`);
          count += 1;
        }
      } finally {
        connection.close();
      }
      return count;
    }),
  );
  return (counts.reduce((a, b) => a + b, 0) / (performance.now() - started)) * 1000;
}
