import { createHash, randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

/** A registry in memory that takes uploads by the letter of the distribution specification, resumes them, and does as a test tells it. */
export interface UploadRegistry extends AsyncDisposable {
  readonly address: string;
  readonly origin: string;
  /** Method and path of every request, without queries. */
  readonly seen: string[];
  /** By `<repository> <digest>`. */
  readonly blobs: Map<string, Buffer>;
  /** Open uploads by their id. */
  readonly uploads: Map<string, Buffer>;
  /** Asked before anything else; true when it has answered. */
  intercept: (request: IncomingMessage, response: ServerResponse) => boolean;
  /** Ends the connection when this many bytes of a PATCH or PUT have come; they are kept. Asked for each. */
  cutAfter: (request: IncomingMessage) => number | undefined;
  /** Where an upload goes on; relative by default. */
  location: (repository: string, id: string) => string;
}

const sha256 = (bytes: Buffer): string => `sha256:${createHash('sha256').update(bytes).digest('hex')}`;

/** Start it on a free port of loopback. */
export async function startUploadRegistry(): Promise<UploadRegistry> {
  const blobs = new Map<string, Buffer>();
  const uploads = new Map<string, Buffer>();
  const seen: string[] = [];
  const told: Pick<UploadRegistry, 'intercept' | 'cutAfter' | 'location'> = {
    intercept: () => false,
    cutAfter: () => undefined,
    location: (repository, id) => `/v2/${repository}/blobs/uploads/${id}?state=${randomUUID()}`,
  };
  const refuse = (response: ServerResponse, status: number, code: string): void => {
    response.writeHead(status, { 'content-type': 'application/json' });
    response.end(JSON.stringify({ errors: [{ code, message: code.toLowerCase().replaceAll('_', ' ') }] }));
  };
  const standing = (response: ServerResponse, status: number, repository: string, id: string): void => {
    const size = uploads.get(id)?.length ?? 0;
    response.writeHead(status, { location: told.location(repository, id), range: `0-${Math.max(0, size - 1)}` });
    response.end();
  };
  /** False: the connection was cut. */
  const take = async (request: IncomingMessage, id: string): Promise<boolean> => {
    const limit = told.cutAfter(request) ?? Infinity;
    let taken = 0;
    for await (const chunk of request as AsyncIterable<Buffer>) {
      const part = chunk.subarray(0, limit - taken);
      taken += part.length;
      uploads.set(id, Buffer.concat([uploads.get(id) ?? Buffer.alloc(0), part]));
      if (taken >= limit) {
        request.destroy();
        return false;
      }
    }
    return true;
  };
  const upload = async (request: IncomingMessage, response: ServerResponse, path: string, query: URLSearchParams) => {
    const [, repository = '', id = ''] = /^\/v2\/(.+)\/blobs\/uploads\/(.+)$/.exec(path) ?? [];
    const held = uploads.get(id);
    if (held === undefined) {
      refuse(response, 404, 'BLOB_UPLOAD_UNKNOWN');
      return;
    }
    if (request.method === 'GET') standing(response, 204, repository, id);
    else if (request.method === 'DELETE') {
      uploads.delete(id);
      response.writeHead(204).end();
    } else {
      const begin = /^(\d+)-/.exec(request.headers['content-range'] ?? '')?.[1];
      if (begin !== undefined && Number(begin) !== held.length) {
        standing(response, 416, repository, id);
        return;
      }
      if (!(await take(request, id))) return;
      if (request.method === 'PATCH') standing(response, 202, repository, id);
      else {
        const digest = query.get('digest') ?? '';
        const bytes = uploads.get(id) ?? Buffer.alloc(0);
        if (sha256(bytes) !== digest) {
          refuse(response, 400, 'DIGEST_INVALID');
          return;
        }
        uploads.delete(id);
        blobs.set(`${repository} ${digest}`, bytes);
        response.writeHead(201, { 'docker-content-digest': digest }).end();
      }
    }
  };
  const answer = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const { pathname: path, searchParams } = new URL(request.url ?? '', 'http://registry');
    seen.push(`${request.method ?? ''} ${path}`);
    if (told.intercept(request, response)) return;
    const blob = /^\/v2\/(.+)\/blobs\/(sha256:.+)$/.exec(path);
    if (path === '/v2/') response.end('{}');
    else if (blob !== null) {
      const [, repository = '', digest = ''] = blob;
      if (blobs.has(`${repository} ${digest}`)) response.writeHead(200).end();
      else refuse(response, 404, 'BLOB_UNKNOWN');
    } else if (path.endsWith('/blobs/uploads/')) {
      const repository = path.slice('/v2/'.length, -'/blobs/uploads/'.length);
      const mounted = blobs.get(`${searchParams.get('from') ?? ''} ${searchParams.get('mount') ?? ''}`);
      if (mounted !== undefined) {
        blobs.set(`${repository} ${searchParams.get('mount') ?? ''}`, mounted);
        response.writeHead(201).end();
        return;
      }
      const id = randomUUID();
      uploads.set(id, Buffer.alloc(0));
      standing(response, 202, repository, id);
    } else await upload(request, response, path, searchParams);
  };
  const server = createServer((request, response) => {
    response.on('error', () => undefined);
    answer(request, response).catch(() => response.destroy());
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = `127.0.0.1:${(server.address() as AddressInfo).port}`;
  return Object.assign(told, {
    address,
    origin: `http://${address}`,
    seen,
    blobs,
    uploads,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      server.close();
      await once(server, 'close');
    },
  });
}
