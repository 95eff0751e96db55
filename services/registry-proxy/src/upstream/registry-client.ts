import { parseChallenges } from './challenges.js';
import type { Challenge } from './challenges.js';
import { basicAuthorization, hasCredentials } from './credentials.js';
import type { Credentials } from './credentials.js';
import type { Endpoint, Endpoints } from './endpoints.js';
import { discard, errorOf } from './http-transport.js';
import type { HttpBody, HttpMethod, HttpRequest, HttpResponse, HttpTransport } from './http-transport.js';
import { NoCredentialsError, RegistryError, TransportError } from './registry-error.js';
import { Tokens } from './tokens.js';
import type { TokenRequest } from './tokens.js';

/** A registry that answered `GET /v2/`. */
export interface ReachedRegistry {
  readonly endpoint: Endpoint;
  readonly challenges: readonly Challenge[];
}

export interface RepositoryRequest {
  readonly method: HttpMethod;
  /** Below `/v2/`, or whole as a registry gave it; credentials go to the registry's own origin only. */
  readonly path: string | URL;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: HttpBody | undefined;
  readonly headersTimeoutMs?: number | undefined;
  /** Token scope; several with spaces between. */
  readonly scope: string;
  readonly credentials: Credentials | undefined;
  readonly signal?: AbortSignal | undefined;
}

const reachedForMs = 10 * 60_000;
const pingTimeoutMs = 15_000;

/** Authenticated requests to registries. Statuses of 400 and more are thrown as RegistryError. */
export class RegistryClient {
  readonly #endpoints: Endpoints;
  readonly #transport: HttpTransport;
  readonly #tokens: Tokens;
  readonly #reached = new Map<string, { readonly registry: ReachedRegistry; readonly until: number }>();

  constructor(endpoints: Endpoints, transport: HttpTransport) {
    this.#endpoints = endpoints;
    this.#transport = transport;
    this.#tokens = new Tokens(transport);
  }

  /**
   * Run `use` against the first of the registry's addresses that answers. A mirror that refuses or breaks is passed over.
   *
   * @throws TransportError of the last address when none answers: of https and plain http the plain attempt's, as in Docker.
   */
  async withRegistry<T>(
    domain: string,
    signal: AbortSignal | undefined,
    use: (registry: ReachedRegistry) => Promise<T>,
  ): Promise<T> {
    return this.#withFirst(await this.#orderedCandidates(domain), signal, use);
  }

  /** As `withRegistry`, but never a mirror: for what changes the registry, and for credentials that are to be proved. */
  async withOrigin<T>(
    domain: string,
    signal: AbortSignal | undefined,
    use: (registry: ReachedRegistry) => Promise<T>,
  ): Promise<T> {
    const candidates = await this.#orderedCandidates(domain);
    return this.#withFirst(
      candidates.filter(({ isMirror }) => !isMirror),
      signal,
      use,
    );
  }

  async #withFirst<T>(
    candidates: readonly Endpoint[],
    signal: AbortSignal | undefined,
    use: (registry: ReachedRegistry) => Promise<T>,
  ): Promise<T> {
    let failure: unknown;
    for (const endpoint of candidates) {
      let registry: ReachedRegistry;
      try {
        registry = await this.reach(endpoint, signal);
      } catch (error) {
        if (!(error instanceof TransportError)) throw error;
        failure = error;
        continue;
      }
      try {
        return await use(registry);
      } catch (error) {
        if (error instanceof TransportError) this.#reached.delete(endpoint.origin);
        if (!endpoint.isMirror || signal?.aborted === true) throw error;
        failure = error;
      }
    }
    throw failure;
  }

  /** An address that answered before stands for its registry: https is not tried again where plain http was found. */
  async #orderedCandidates(domain: string): Promise<Endpoint[]> {
    const candidates = await this.#endpoints.candidates(domain);
    const known = candidates.find(({ origin, isMirror }) => !isMirror && this.#known(origin) !== undefined);
    return known === undefined ? candidates : candidates.filter((it) => it.isMirror || it === known);
  }

  #known(origin: string): ReachedRegistry | undefined {
    const known = this.#reached.get(origin);
    return known !== undefined && known.until > Date.now() ? known.registry : undefined;
  }

  /** Ask `GET /v2/` how to authenticate; remembered for ten minutes. */
  async reach(endpoint: Endpoint, signal?: AbortSignal): Promise<ReachedRegistry> {
    const known = this.#known(endpoint.origin);
    if (known !== undefined) return known;
    const response = await this.#transport.send({
      method: 'GET',
      url: new URL('/v2/', endpoint.origin),
      verifyTls: endpoint.verifyTls,
      headersTimeoutMs: pingTimeoutMs,
      signal,
    });
    await discard(response.body);
    const registry = { endpoint, challenges: challengesOf(response) };
    if (response.status < 500 && response.status !== 429) {
      this.#reached.set(endpoint.origin, { registry, until: Date.now() + reachedForMs });
    }
    return registry;
  }

  /** Ask every registry anew. */
  forgetReached(): void {
    this.#reached.clear();
  }

  /** One request, with one more try after a 401 with the challenge that came with it. */
  async request(registry: ReachedRegistry, wanted: RepositoryRequest): Promise<HttpResponse> {
    const { endpoint } = registry;
    const url = typeof wanted.path === 'string' ? new URL(`/v2/${wanted.path}`, endpoint.origin) : wanted.path;
    const isOwn = url.origin === endpoint.origin;
    const send = async (authorization: string | undefined): Promise<HttpResponse> => {
      const request: HttpRequest = {
        method: wanted.method,
        url,
        verifyTls: endpoint.verifyTls || url.host !== endpoint.host,
        headers: { ...wanted.headers, ...(authorization === undefined ? {} : { authorization }) },
        body: wanted.body,
        headersTimeoutMs: wanted.headersTimeoutMs,
        signal: wanted.signal,
      };
      return this.#transport.send(request);
    };
    if (!isOwn) return accept(await send(undefined));
    const first = await send(await this.#authorization(registry.challenges, wanted, endpoint, url));
    if (first.status !== 401) return accept(first);
    const challenges = challengesOf(first);
    const refused = await errorOf(first);
    if (challenges.length === 0 || wanted.credentials?.registryToken) throw refused;
    this.#forgetToken(challenges, wanted, endpoint);
    if (!needsToken(challenges) && (!hasCredentials(wanted.credentials) || registry.challenges.length > 0)) {
      throw hasCredentials(wanted.credentials) ? refused : noCredentials(url);
    }
    return accept(await send(await this.#authorization(challenges, wanted, endpoint, url)));
  }

  /** Prove credentials against `GET /v2/`. Gives a refresh token where the registry makes one. */
  async logIn(registry: ReachedRegistry, credentials: Credentials, signal?: AbortSignal): Promise<string> {
    const { endpoint } = registry;
    const url = new URL('/v2/', endpoint.origin);
    const bearer = registry.challenges.find(({ scheme }) => scheme === 'bearer');
    let authorization: string | undefined;
    let refreshToken = '';
    if (bearer !== undefined) {
      const request = {
        challenge: bearer,
        scope: '',
        credentials,
        verifyTls: endpoint.verifyTls,
        offline: true,
        signal,
      };
      this.#tokens.forget(request);
      const token = await this.#tokens.get(request);
      authorization = `Bearer ${token.value}`;
      ({ refreshToken } = token);
    } else if (registry.challenges.some(({ scheme }) => scheme === 'basic')) {
      authorization = basicAuthorization(credentials);
    }
    const response = await this.#transport.send({
      method: 'GET',
      url,
      verifyTls: endpoint.verifyTls,
      headers: authorization === undefined ? {} : { authorization },
      headersTimeoutMs: pingTimeoutMs,
      signal,
    });
    await discard(response.body);
    if (response.status >= 400) {
      const status = `${response.status} ${response.statusText}`.trim();
      throw new RegistryError(response.status, 'http', `login attempt to ${url.href} failed with status: ${status}`);
    }
    return refreshToken;
  }

  async #authorization(
    challenges: readonly Challenge[],
    { credentials, scope, signal }: RepositoryRequest,
    endpoint: Endpoint,
    url: URL,
  ): Promise<string | undefined> {
    // Credentials are for the registry that was named, never for a mirror of it.
    const own = endpoint.isMirror ? undefined : credentials;
    if (own !== undefined && own.registryToken !== '') return `Bearer ${own.registryToken}`;
    const bearer = challenges.find(({ scheme }) => scheme === 'bearer');
    if (bearer !== undefined) {
      const request: TokenRequest = {
        challenge: bearer,
        scope,
        credentials: own,
        verifyTls: endpoint.verifyTls,
        signal,
      };
      return `Bearer ${(await this.#tokens.get(request)).value}`;
    }
    if (!challenges.some(({ scheme }) => scheme === 'basic')) return undefined;
    if (!hasCredentials(own)) throw noCredentials(url);
    return basicAuthorization(own);
  }

  #forgetToken(challenges: readonly Challenge[], { credentials, scope }: RepositoryRequest, endpoint: Endpoint): void {
    const bearer = challenges.find(({ scheme }) => scheme === 'bearer');
    if (bearer === undefined) return;
    const own = endpoint.isMirror ? undefined : credentials;
    this.#tokens.forget({ challenge: bearer, scope, credentials: own, verifyTls: endpoint.verifyTls });
  }
}

const needsToken = (challenges: readonly Challenge[]): boolean => challenges.some(({ scheme }) => scheme === 'bearer');

/** Docker's sentence, whose tools ask with HEAD first. */
function noCredentials(url: URL): RegistryError {
  return new NoCredentialsError(`Head "${url.href}": no basic auth credentials`);
}

function challengesOf(response: HttpResponse): Challenge[] {
  return response.status === 401 ? parseChallenges(response.headers.get('www-authenticate') ?? '') : [];
}

async function accept(response: HttpResponse): Promise<HttpResponse> {
  // 416 is an answer to a Range that the caller understands.
  if (response.status >= 400 && response.status !== 416) throw await errorOf(response);
  return response;
}
