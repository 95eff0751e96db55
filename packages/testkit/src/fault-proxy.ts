import { once } from 'node:events';
import { createServer, request } from 'node:http';
import type { ClientRequest, IncomingMessage, ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

/** What to do instead of passing a request on. */
export type Fault =
  | {
      readonly kind: 'status';
      readonly status: number;
      readonly headers?: Record<string, string>;
      readonly body?: string;
    }
  /** Never answer. */
  | { readonly kind: 'hang' }
  /** Pass on, but end the connection after this many bytes of the body. */
  | { readonly kind: 'cut'; readonly afterBytes: number }
  /** Pass on this many bytes of the request's body, then end both connections. */
  | { readonly kind: 'cut-request'; readonly afterBytes: number }
  /** Pass on, but fall silent after this many bytes of the body. */
  | { readonly kind: 'stall'; readonly afterBytes: number }
  /** Pass on with one byte of the body changed. */
  | { readonly kind: 'corrupt'; readonly atByte: number }
  /** Pass on without Range: a registry that cannot resume. */
  | { readonly kind: 'ignore-range' }
  /** Pass on, the body slowed to about this rate. */
  | { readonly kind: 'slow'; readonly bytesPerSecond: number }
  /** Pass on, but nothing of the answer before `until` is settled. */
  | { readonly kind: 'hold'; readonly until: Promise<unknown> };

export interface SeenRequest {
  readonly method: string;
  readonly path: string;
  readonly authorization: string | undefined;
  readonly range: string | undefined;
  /** Bytes of the request's body that were passed to the registry, so far. */
  uploadedBytes: number;
  /** Bytes of the answer's body that were passed to the client, so far. */
  downloadedBytes: number;
}

/** A proxy in front of a registry that breaks what it is told to break. */
export interface FaultProxy extends AsyncDisposable {
  /** `127.0.0.1:port`, to name images by. */
  readonly address: string;
  readonly seen: SeenRequest[];
  /** Asked for each request; undefined passes it on. */
  decide: (seen: SeenRequest) => Fault | undefined;
}

/** Start a fault proxy before `upstream` (`host:port`, plain HTTP). */
export async function startFaultProxy(upstream: string): Promise<FaultProxy> {
  const [host = '', port = ''] = upstream.split(':');
  const seen: SeenRequest[] = [];
  const proxy = { decide: (_: SeenRequest): Fault | undefined => undefined };
  const server = createServer((incoming, outgoing) => {
    const entry: SeenRequest = {
      method: incoming.method ?? '',
      path: incoming.url ?? '',
      authorization: incoming.headers.authorization,
      range: incoming.headers.range,
      uploadedBytes: 0,
      downloadedBytes: 0,
    };
    seen.push(entry);
    outgoing.on('error', () => undefined);
    const fault = proxy.decide(entry);
    if (fault?.kind === 'hang') return;
    if (fault?.kind === 'status') {
      outgoing.writeHead(fault.status, { 'content-type': 'application/json', ...fault.headers });
      outgoing.end(fault.body ?? '');
      return;
    }
    const headers = { ...incoming.headers };
    if (fault?.kind === 'ignore-range') delete headers.range;
    const passed = request({ host, port, method: entry.method, path: entry.path, headers, agent: false });
    passed.on('error', () => outgoing.destroy());
    passed.on('response', (response) => {
      void passResponse(response, outgoing, fault, entry);
    });
    if (fault?.kind === 'cut-request') void cutBody(incoming, passed, fault.afterBytes, entry);
    else {
      incoming.on('data', (chunk: Buffer) => (entry.uploadedBytes += chunk.length));
      incoming.pipe(passed);
    }
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    address: `127.0.0.1:${(server.address() as AddressInfo).port}`,
    seen,
    get decide() {
      return proxy.decide;
    },
    set decide(decide) {
      proxy.decide = decide;
    },
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      server.close();
      await once(server, 'close');
    },
  };
}

async function cutBody(
  incoming: IncomingMessage,
  passed: ClientRequest,
  afterBytes: number,
  entry: SeenRequest,
): Promise<void> {
  let left = afterBytes;
  try {
    for await (const chunk of incoming as AsyncIterable<Buffer>) {
      await new Promise((resolve) => passed.write(chunk.subarray(0, left), resolve));
      entry.uploadedBytes += Math.min(left, chunk.length);
      left -= chunk.length;
      if (left <= 0) break;
    }
  } finally {
    passed.destroy();
    incoming.destroy();
  }
}

async function passResponse(
  response: IncomingMessage,
  outgoing: ServerResponse,
  fault: Fault | undefined,
  entry: SeenRequest,
): Promise<void> {
  if (fault?.kind === 'hold') await fault.until;
  outgoing.writeHead(response.statusCode ?? 502, response.headers);
  await passBody(response, outgoing, fault, entry);
}

async function passBody(
  response: IncomingMessage,
  outgoing: ServerResponse,
  fault: Fault | undefined,
  entry: SeenRequest,
): Promise<void> {
  let passed = 0;
  try {
    for await (const chunk of response as AsyncIterable<Buffer>) {
      let bytes = chunk;
      if (fault?.kind === 'corrupt' && fault.atByte >= passed && fault.atByte < passed + bytes.length) {
        bytes = Buffer.from(bytes);
        const at = fault.atByte - passed;
        bytes[at] = (bytes[at] ?? 0) ^ 0xff;
      }
      const limit = fault?.kind === 'cut' || fault?.kind === 'stall' ? fault.afterBytes - passed : Infinity;
      passed += bytes.length;
      const allowed = bytes.subarray(0, Math.max(0, limit));
      entry.downloadedBytes += allowed.length;
      if (!outgoing.write(allowed)) await once(outgoing, 'drain');
      if (bytes.length >= limit) {
        if (fault?.kind === 'stall') return;
        // Let what was written reach the other side first.
        await new Promise((resolve) => setTimeout(resolve, 20));
        outgoing.destroy();
        return;
      }
      if (fault?.kind === 'slow') {
        await new Promise((resolve) => setTimeout(resolve, (bytes.length / fault.bytesPerSecond) * 1000));
      }
    }
    outgoing.end();
  } catch {
    outgoing.destroy();
  }
}
