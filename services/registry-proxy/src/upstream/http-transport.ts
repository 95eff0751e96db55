import { isIP } from 'node:net';
import { Readable } from 'node:stream';
import { isEngineError } from '@flotilla/errors';
import type { Dispatcher } from 'undici';
import { certificatesVersion, readCertificates, trustedAuthorities } from './certificates.js';
import { dropOldest } from './drop-oldest.js';
import type { CertificateFiles } from './hosts-file.js';
import { parseUrl } from './parse-url.js';
import { proxyChoice } from './proxy-rules.js';
import type { ProxyChoice, ProxyRules } from './proxy-rules.js';
import { RegistryError, readRegistryError } from './registry-error.js';
import { requestName, toTransportError } from './transport-error.js';

export interface TransportOptions {
  readonly certsDir: string;
  readonly connectTimeoutMs: number;
  readonly headersTimeoutMs: number;
  /** Longest silence inside a body. */
  readonly bodyTimeoutMs: number;
  readonly proxies?: ProxyRules | undefined;
  readonly userAgent: string;
}

/** A body that can be sent again: after a redirect, or with another token. */
export interface HttpBody {
  readonly size: number;
  /** The bytes from the start. What it throws is what `send` throws. */
  read(): AsyncIterable<Uint8Array>;
}

export type HttpMethod = 'GET' | 'HEAD' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';

export interface HttpRequest {
  readonly method: HttpMethod;
  readonly url: URL;
  /** False: any certificate will do. */
  readonly verifyTls: boolean;
  /** For the URL's own host, beside what certs.d has for it. */
  readonly certificates?: CertificateFiles | undefined;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string | HttpBody | undefined;
  readonly signal?: AbortSignal | undefined;
  /** Instead of the transport's own, for requests that should answer at once, or may take long. */
  readonly headersTimeoutMs?: number | undefined;
}

export interface HttpResponse {
  readonly status: number;
  readonly statusText: string;
  readonly headers: ReadonlyMap<string, string>;
  /** Must be read to its end or destroyed. Where redirects led. */
  readonly body: Dispatcher.ResponseData['body'];
  readonly url: URL;
}

/** Loaded by the first request: 12 MiB that an engine without registries never needs. */
const loadUndici = () => import('undici');

const maxRedirects = 10;
const maxAgents = 256;
const redirects = new Set([301, 302, 303, 307, 308]);

/** HTTP for registries: an agent per host with its certificates, bounded waits, redirects without credentials. */
export class HttpTransport implements AsyncDisposable {
  readonly #options: TransportOptions;
  readonly #agents = new Map<string, { readonly certificates: string; readonly agent: Promise<Dispatcher> }>();
  #proxyFor: ProxyChoice;

  /** @throws EngineError `invalidArgument` for a bad proxy. */
  constructor(options: TransportOptions) {
    this.#options = options;
    this.#proxyFor = proxyChoice(options.proxies);
  }

  get headersTimeoutMs(): number {
    return this.#options.headersTimeoutMs;
  }

  /** Check new proxies; what is returned puts them in force. */
  prepareProxies(rules: ProxyRules | undefined): () => void {
    const choice = proxyChoice(rules);
    return () => {
      this.#proxyFor = choice;
    };
  }

  /**
   * Send a request and follow redirects; Authorization goes to the first origin only.
   *
   * @throws TransportError without a complete head of a response; the signal's reason when it fires.
   */
  async send(wanted: HttpRequest): Promise<HttpResponse> {
    let { url } = wanted;
    for (let hop = 0; ; hop += 1) {
      const response = await this.#sendOnce(wanted, url);
      const location = response.headers.get('location');
      if (!redirects.has(response.status) || location === undefined) return response;
      await discard(response.body);
      const next = parseUrl(location, url);
      if (hop === maxRedirects || next === null || !['http:', 'https:'].includes(next.protocol)) {
        throw new RegistryError(
          response.status,
          'http',
          `${requestName(wanted.method, url)}: stopped after ${hop + 1} redirects`,
        );
      }
      url = next;
    }
  }

  async #sendOnce(wanted: HttpRequest, url: URL): Promise<HttpResponse> {
    const { method, signal, body } = wanted;
    signal?.throwIfAborted();
    const headers: Record<string, string> = { ...wanted.headers, 'user-agent': this.#options.userAgent };
    if (url.origin !== wanted.url.origin) delete headers['authorization'];
    if (typeof body === 'object') headers['content-length'] = String(body.size);
    try {
      const { request } = await loadUndici();
      const answer = await request(url, {
        dispatcher: await this.#agent(
          url,
          wanted.verifyTls || url.host !== wanted.url.host,
          url.host === wanted.url.host ? wanted.certificates : undefined,
        ),
        method,
        headers,
        ...(body === undefined ? {} : { body: typeof body === 'string' ? body : Readable.from(body.read()) }),
        ...(signal === undefined ? {} : { signal }),
        headersTimeout: wanted.headersTimeoutMs ?? this.#options.headersTimeoutMs,
        bodyTimeout: this.#options.bodyTimeoutMs,
      });
      return {
        status: answer.statusCode,
        statusText: answer.statusText,
        headers: flatten(answer.headers),
        body: answer.body,
        url,
      };
    } catch (error) {
      signal?.throwIfAborted();
      throw isEngineError(error) ? error : toTransportError(error, method, url, this.#proxyFor(url));
    }
  }

  /** As dockerd, certificates are looked at for every request: what was put into certs.d counts at once. */
  async #agent(url: URL, verifyTls: boolean, named: CertificateFiles | undefined): Promise<Dispatcher> {
    const { certsDir } = this.#options;
    const isTls = url.protocol === 'https:';
    const key = [url.origin, verifyTls, ...(named?.authorities ?? []), '-', ...(named?.clientPair ?? [])].join(' ');
    const certificates = isTls ? await certificatesVersion(certsDir, url.host, named) : '';
    const known = this.#agents.get(key);
    // Newest last, so that the bound drops who has been silent longest.
    this.#agents.delete(key);
    if (known?.certificates === certificates) {
      this.#agents.set(key, known);
      return known.agent;
    }
    if (known !== undefined) closeWhenDone(known.agent);
    const agent = this.#makeAgent(url, verifyTls, named);
    this.#agents.set(key, { certificates, agent });
    const dropped = dropOldest(this.#agents, maxAgents);
    if (dropped !== undefined) closeWhenDone(dropped.agent);
    agent.catch(() => {
      if (this.#agents.get(key)?.agent === agent) this.#agents.delete(key);
    });
    return agent;
  }

  async #makeAgent(url: URL, verifyTls: boolean, named: CertificateFiles | undefined): Promise<Dispatcher> {
    const { connectTimeoutMs, certsDir } = this.#options;
    const tls: Record<string, unknown> = {};
    if (url.protocol === 'https:') {
      const { authorities, client } = await readCertificates(certsDir, url.host, named);
      // Hundreds of certificates: not where none is looked at.
      if (verifyTls) tls['ca'] = [...(await trustedAuthorities()), ...authorities];
      tls['rejectUnauthorized'] = verifyTls;
      if (client !== undefined) {
        tls['cert'] = client.certificate;
        tls['key'] = client.key;
      }
    }
    const { Agent, ProxyAgent } = await loadUndici();
    const common = { allowH2: false, keepAliveTimeout: 15_000, maxHeaderSize: 64 * 1024 };
    const proxy = this.#proxyFor(url);
    if (proxy === undefined) return new Agent({ ...common, connect: { timeout: connectTimeoutMs, ...tls } });
    const name = url.hostname.replace(/^\[|\]$/g, '');
    return new ProxyAgent({
      ...common,
      uri: proxy.href,
      // Plain requests go to the proxy whole, as Go's client sends them; many proxies allow CONNECT to 443 only.
      proxyTunnel: url.protocol === 'https:',
      proxyTls: { timeout: connectTimeoutMs, ca: [...(await trustedAuthorities())] },
      requestTls: { timeout: connectTimeoutMs, ...tls, ...(isIP(name) === 0 ? { servername: name } : {}) },
    });
  }

  /** Forget certificates and connections, e.g. after a change of certs.d. What runs goes on. */
  reset(): Promise<void> {
    for (const { agent } of this.#agents.values()) closeWhenDone(agent);
    this.#agents.clear();
    return Promise.resolve();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const agents = [...this.#agents.values()];
    this.#agents.clear();
    await Promise.allSettled(agents.map(async ({ agent }) => (await agent).destroy()));
  }
}

/** What it carries goes on to its end. */
function closeWhenDone(agent: Promise<Dispatcher>): void {
  agent.then((it) => it.close()).catch(() => undefined);
}

function flatten(headers: Record<string, string | string[] | undefined>): Map<string, string> {
  const flat = new Map<string, string>();
  for (const [name, value] of Object.entries(headers)) {
    if (value !== undefined) flat.set(name.toLowerCase(), Array.isArray(value) ? value.join(', ') : value);
  }
  return flat;
}

const maxErrorBytes = 64 * 1024;

/** Read the body of a failed request, bounded, and say what it means. */
export async function errorOf(response: HttpResponse): Promise<RegistryError> {
  let text = '';
  try {
    text = (await readBounded(response.body, maxErrorBytes))?.toString('utf8') ?? '';
  } catch {
    // The status says enough.
  }
  const { status, statusText, headers } = response;
  return readRegistryError(
    status,
    statusText,
    { retryAfter: headers.get('retry-after'), challenge: headers.get('www-authenticate') },
    text,
  );
}

/** The whole body, or undefined (and the connection dropped) if it is longer than `limit`. */
export async function readBounded(body: HttpResponse['body'], limit: number): Promise<Buffer | undefined> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of body as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > limit) return undefined;
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

/** Let go of a body that nobody wants. */
export async function discard(body: HttpResponse['body']): Promise<void> {
  try {
    await body.dump();
  } catch {
    // It failed while being thrown away.
  }
}
