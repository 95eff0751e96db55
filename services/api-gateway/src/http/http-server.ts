import { randomUUID } from 'node:crypto';
import { createServer } from 'node:http';
import { ServerResponse } from 'node:http';
import type { IncomingMessage, Server } from 'node:http';
import { Socket } from 'node:net';
import { isEngineError, notFound } from '@flotilla/errors';
import { negotiateApiVersion, renderProgressError } from '@flotilla/docker-api';
import type { ApiVersion } from '@flotilla/docker-api';
import type { Logger } from '@flotilla/log';
import { ApiCall } from './api-call.js';
import { errorReply } from './error-reply.js';
import { HijackedConnection } from './hijack.js';
import type { Match, RouteTable } from './route-table.js';

/** What the HTTP side of the gateway needs. */
export interface ApiServerOptions {
  readonly routes: RouteTable;
  readonly log: Logger;
  readonly minVersion: ApiVersion;
  readonly maxVersion: ApiVersion;
  /** Headers of every reply, name and value in turn. */
  readonly baseHeaders: readonly string[];
  /** Headers of `/_ping`, name and value in turn. */
  readonly pingHeaders: readonly string[];
}

/** How long a client may take to send the headers of a request. */
const HEADERS_TIMEOUT_MS = 60_000;
/** As dockerd takes: credentials of some registries are long. */
const MAX_HEADER_BYTES = 1024 * 1024;

/** Node's HTTP parser of a connection, as far as taking a connection over needs it. */
interface ConnectionParser {
  onIncoming: (req: IncomingMessage, keepAlive: boolean) => number;
}

/** A socket as Node's HTTP server leaves it: with its parser. */
interface ParsedSocket {
  readonly parser?: ConnectionParser | null;
}

/** Path and version of a request. */
interface Target {
  readonly path: string;
  readonly search: string;
  readonly version: string | undefined;
}

/**
 * The HTTP server of the API, not yet listening.
 *
 * Requests of hijack routes leave Node's parser right after their headers, whether or not they ask for an upgrade, so
 * that raw input is never taken for a second request. Other requests ignore an `Upgrade` header, as dockerd does.
 */
export function createApiServer(options: ApiServerOptions): Server {
  const gateway = new Dispatcher(options);
  const server = createServer(
    {
      headersTimeout: HEADERS_TIMEOUT_MS,
      maxHeaderSize: MAX_HEADER_BYTES,
      requestTimeout: 0,
      keepAliveTimeout: 0,
      highWaterMark: 256 * 1024,
    },
    (req, res) => gateway.request(req, res),
  );
  server.on('upgrade', (req, socket, head) => {
    if (socket instanceof Socket) gateway.upgrade(req, socket, head);
    else socket.destroy();
  });
  server.on('connection', (socket: ParsedSocket) => {
    const { parser } = socket;
    if (parser === undefined || parser === null) return;
    const { onIncoming } = parser;
    // The `upgrade` mark decides in Node whether the parser lets go of the connection.
    parser.onIncoming = (req, keepAlive) => {
      (req as IncomingMessage & { upgrade: boolean }).upgrade = gateway.takesOver(req);
      return onIncoming(req, keepAlive);
    };
  });
  server.on('clientError', (_error, socket) => {
    if (socket.writable)
      socket.end(
        'HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n400 Bad Request',
      );
    else socket.destroy();
  });
  return server;
}

class Dispatcher {
  readonly #options: ApiServerOptions;
  readonly #pingHeaders: readonly string[];

  constructor(options: ApiServerOptions) {
    this.#options = options;
    this.#pingHeaders = options.pingHeaders;
  }

  request(req: IncomingMessage, res: ServerResponse): void {
    if (req.url === '/_ping' && (req.method === 'GET' || req.method === 'HEAD')) {
      res.writeHead(200, this.#pingHeaders as string[]);
      res.end('OK');
      return;
    }
    this.#answer(req, res, undefined);
  }

  upgrade(req: IncomingMessage, socket: Socket, head: Buffer): void {
    const res = new ServerResponse(req);
    res.shouldKeepAlive = false;
    res.assignSocket(socket);
    const connection = new HijackedConnection(req, socket, head);
    res.once('finish', () => {
      res.detachSocket(socket);
      connection.end();
    });
    this.#answer(req, res, connection);
  }

  takesOver(req: IncomingMessage): boolean {
    const { method } = req;
    // Only these have such routes: the others need no second look at the table.
    const isCandidate = method === 'POST' || (method === 'GET' && req.headers.upgrade !== undefined);
    if (!isCandidate) return false;
    return this.#options.routes.match(method, targetOf(req.url ?? '/').path)?.route.hijack === true;
  }

  #answer(req: IncomingMessage, res: ServerResponse, connection: HijackedConnection | undefined): void {
    const { log, minVersion, maxVersion, baseHeaders, routes } = this.#options;
    const target = targetOf(req.url ?? '/');
    let call = new ApiCall({
      req,
      res,
      path: target.path,
      search: target.search,
      version: maxVersion,
      params: {},
      requestId: '',
      log,
      baseHeaders,
    });
    try {
      const version =
        target.version === undefined ? maxVersion : negotiateApiVersion(target.version, minVersion, maxVersion);
      if (req.method === 'OPTIONS') {
        call.empty(200);
        return;
      }
      const match = this.#match(routes, req.method ?? 'GET', target.path, version);
      call = new ApiCall({
        req,
        res,
        path: target.path,
        search: target.search,
        version,
        params: match.params,
        requestId: req.method === 'GET' ? '' : randomUUID(),
        log,
        baseHeaders,
        ...(connection === undefined ? {} : { connection }),
      });
      const pending = match.route.handler(call);
      if (pending !== undefined) pending.catch((error: unknown) => this.#fail(call, error));
    } catch (error) {
      this.#fail(call, error);
    }
  }

  #match(routes: RouteTable, method: string, path: string, version: ApiVersion): Match {
    const match = routes.match(method, path);
    if (match === undefined || (match.route.since !== undefined && version < match.route.since))
      throw notFound('page not found');
    return match;
  }

  #fail(call: ApiCall, error: unknown): void {
    const { res, log } = call;
    const { status, message, isBug } = errorReply(error);
    const fields = { method: call.req.method, path: call.path, requestId: call.requestId, status };
    if (isBug) log.error({ ...fields, err: error }, 'request failed by a bug');
    else if (status >= 500) log.warn({ ...fields, reason: message }, 'request failed');
    else log.debug({ ...fields, reason: message }, 'request refused');
    if (isEngineError(error, 'cancelled')) {
      res.destroy();
      call.connection?.socket.destroy();
      return;
    }
    if (!res.headersSent) {
      call.json(status, { message });
      return;
    }
    // The status is gone: streams of JSON messages tell it in band, others can only be cut.
    if (call.isJsonStream) res.end(renderProgressError(message));
    else res.destroy();
  }
}

function targetOf(url: string): Target {
  const mark = url.indexOf('?');
  const path = mark < 0 ? url : url.slice(0, mark);
  const search = mark < 0 ? '' : url.slice(mark + 1);
  const version = path.startsWith('/v') ? /^\/v([0-9.]+)(?=\/)/.exec(path) : null;
  return version === null
    ? { path, search, version: undefined }
    : { path: path.slice(version[0].length), search, version: version[1] };
}
