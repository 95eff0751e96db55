import { once } from 'node:events';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { cancelled, invalidArgument, messageOf } from '@flotilla/errors';
import type { ApiVersion } from '@flotilla/docker-api';
import type { Logger } from '@flotilla/log';
import { decodeJson } from '../json/decoders.js';
import type { Decoder } from '../json/decoders.js';
import type { HijackedConnection } from './hijack.js';

/** The largest JSON body that is read; more is refused before it fills the memory. */
const MAX_JSON_BYTES = 8 * 1024 * 1024;

/** What an {@link ApiCall} is made of. */
export interface ApiCallParts {
  readonly req: IncomingMessage;
  readonly res: ServerResponse;
  readonly path: string;
  readonly search: string;
  readonly version: ApiVersion;
  readonly params: Readonly<Record<string, string | undefined>>;
  readonly requestId: string;
  readonly log: Logger;
  /** Headers of every reply, name and value in turn. */
  readonly baseHeaders: readonly string[];
  /** Present when the route takes the connection over. */
  readonly connection?: HijackedConnection;
}

/** One HTTP request, its reply, and what handlers need of both. */
export class ApiCall {
  readonly req: IncomingMessage;
  readonly res: ServerResponse;
  readonly path: string;
  readonly version: ApiVersion;
  /** Key of all mutating calls to owners: a retry carries the same. */
  readonly requestId: string;
  readonly log: Logger;
  readonly connection: HijackedConnection | undefined;
  readonly #params: Readonly<Record<string, string | undefined>>;
  readonly #search: string;
  readonly #baseHeaders: readonly string[];
  readonly #warnings: string[] = [];
  #query: URLSearchParams | undefined;
  #isJsonStream = false;
  #abort: AbortController | undefined;

  constructor(parts: ApiCallParts) {
    this.req = parts.req;
    this.res = parts.res;
    this.path = parts.path;
    this.version = parts.version;
    this.requestId = parts.requestId;
    this.log = parts.log;
    this.connection = parts.connection;
    this.#params = parts.params;
    this.#search = parts.search;
    this.#baseHeaders = parts.baseHeaders;
  }

  /** The decoded query string; parsed when first asked for. */
  get query(): URLSearchParams {
    return (this.#query ??= new URLSearchParams(this.#search));
  }

  /** Whether the request has a query string at all. */
  get hasQuery(): boolean {
    return this.#search !== '';
  }

  /** Fires when the client goes away before the reply is complete. */
  get signal(): AbortSignal {
    if (this.#abort === undefined) {
      const abort = (this.#abort = new AbortController());
      const stream = this.connection?.socket ?? this.res;
      const gone = (): void => {
        if (!this.res.writableFinished || this.connection !== undefined) abort.abort(cancelled('the client went away'));
      };
      if (stream.destroyed) gone();
      else stream.once('close', gone);
    }
    return this.#abort.signal;
  }

  /** A path parameter. */
  param(name: string): string {
    return this.#params[name] ?? '';
  }

  /** Headers of every reply followed by more, as a flat list. */
  headers(...more: readonly string[]): string[] {
    return [...this.#baseHeaders, ...this.#warnings, ...more];
  }

  /** A sentence for whoever looks at the reply's headers, where its body has no place: `Warning` of RFC 7234. */
  warn(sentence: string): void {
    const text = sentence.slice(0, 1000).replace(/[^ -~]/g, '?');
    this.#warnings.push('Warning', `110 - "${text.replace(/["\\]/g, '\\$&')}"`);
  }

  /** Reply with JSON, closed by a line feed as Go's encoder does. */
  json(status: number, body: unknown): void {
    this.send(status, Buffer.from(`${JSON.stringify(body)}\n`));
  }

  /** Reply with finished bytes. */
  send(status: number, body: Buffer, contentType = 'application/json'): void {
    this.res.writeHead(status, this.headers('Content-Type', contentType, 'Content-Length', String(body.length)));
    this.res.end(body);
  }

  /** Reply with a status alone. */
  empty(status: number): void {
    this.res.writeHead(status, status === 204 || status === 304 ? this.headers() : this.headers('Content-Length', '0'));
    this.res.end();
  }

  /** Send the status and headers of a body that follows, at once. */
  startBody(status: number, contentType: string, ...more: readonly string[]): void {
    this.res.writeHead(status, this.headers('Content-Type', contentType, ...more));
    this.res.flushHeaders();
  }

  /** Begin a stream of JSON messages: a failure after this is told in band, as `errorDetail` and `error`. */
  startJsonStream(): void {
    this.#isJsonStream = true;
    this.startBody(200, 'application/json');
  }

  /** Whether the reply is a stream of JSON messages. */
  get isJsonStream(): boolean {
    return this.#isJsonStream;
  }

  /**
   * Write a part of the body and wait until the connection takes more.
   * @throws EngineError `cancelled` when the client is gone
   */
  async write(chunk: Uint8Array | string): Promise<void> {
    if (this.res.destroyed) throw cancelled('the client went away');
    if (this.res.write(chunk)) return;
    await once(this.res, 'drain', { signal: this.signal }).catch((error: unknown) => {
      throw cancelled('the client went away', { cause: error });
    });
  }

  /**
   * Reply with a stream of bytes. The status goes out with the first of them, so a failure before it still has one.
   * @throws EngineError `cancelled` when the client is gone
   */
  async stream(contentType: string, chunks: AsyncIterable<Uint8Array>): Promise<void> {
    let hasBegun = false;
    for await (const chunk of chunks) {
      if (!hasBegun) this.startBody(200, contentType);
      hasBegun = true;
      if (chunk.length > 0) await this.write(chunk);
    }
    if (!hasBegun) this.startBody(200, contentType);
    this.end();
  }

  /** End a body that was begun with {@link startBody}. */
  end(): void {
    this.res.end();
  }

  /** The request body as it arrives. Leaving the loop early leaves the connection open; the rest is read away after the reply. */
  async *body(): AsyncGenerator<Buffer> {
    try {
      for await (const chunk of this.req.iterator({ destroyOnReturn: false })) yield chunk as Buffer;
    } catch (error) {
      throw cancelled(`the request body broke off: ${messageOf(error)}`, { cause: error });
    }
  }

  /** The whole request body as text. @throws EngineError `invalidArgument` beyond the limit */
  async text(): Promise<string> {
    if (this.connection !== undefined) return this.connection.readBody(MAX_JSON_BYTES);
    const chunks: Buffer[] = [];
    let length = 0;
    for await (const chunk of this.body()) {
      length += chunk.length;
      if (length > MAX_JSON_BYTES) throw invalidArgument('http: request body too large');
      chunks.push(chunk);
    }
    return Buffer.concat(chunks).toString('utf8');
  }

  /**
   * Read a JSON body by dockerd's rules: the content type must say so, an empty body is no error.
   * @returns undefined when there is no body
   */
  async readJson<T>(decoder: Decoder<T>): Promise<T | undefined> {
    this.checkContentType();
    if (!this.#hasBody()) return undefined;
    return decodeJson(await this.text(), decoder);
  }

  /** Read a JSON body that must be there. */
  async requireJson<T>(decoder: Decoder<T>): Promise<T | undefined> {
    this.checkContentType();
    return decodeJson(await this.text(), decoder);
  }

  /** @throws EngineError `invalidArgument` when there is a body and it does not say that it is JSON */
  checkContentType(): void {
    const type = this.req.headers['content-type'] ?? '';
    if (type === '' && !this.#hasBody()) return;
    const media = (type.split(';')[0] ?? '').trim().toLowerCase();
    if (media === 'application/json') return;
    if (media === '') throw invalidArgument(`malformed Content-Type header (${type}): mime: no media type`);
    throw invalidArgument(`unsupported Content-Type header (${type}): must be 'application/json'`);
  }

  #hasBody(): boolean {
    const length = this.req.headers['content-length'];
    return this.req.headers['transfer-encoding'] !== undefined || (length !== undefined && length !== '0');
  }
}
