import { parseChallenges } from './challenges.js';
import type { Challenge } from './challenges.js';
import { CircuitBreaker } from './circuit-breaker.js';
import { basicAuthorization, hasCredentials } from './credentials.js';
import type { Credentials } from './credentials.js';
import { dropOldest } from './drop-oldest.js';
import { noHosts } from './endpoints.js';
import type { Endpoint, Endpoints } from './endpoints.js';
import type { Capability } from './hosts-file.js';
import { discard, errorOf } from './http-transport.js';
import type { HttpBody, HttpMethod, HttpRequest, HttpResponse, HttpTransport } from './http-transport.js';
import { parseUrl } from './parse-url.js';
import { NoCredentialsError, RegistryError, TransportError, isOutage } from './registry-error.js';
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

export interface RegistryNeeds {
  /** `pull` when absent. */
  readonly capability?: Capability;
  /** The caller can do without an answer: addresses that keep failing are not waited for, nor any for long. */
  readonly canDoWithout?: boolean;
}

const reachedForMs = 10 * 60_000;
const maxReached = 1000;
const pingTimeoutMs = 15_000;
const impatientMs = 5_000;
const circuitRules = { failures: 3, openMs: 15_000, maxOpenMs: 120_000 };

/** Authenticated requests to registries. Statuses of 400 and more are thrown as RegistryError. */
export class RegistryClient {
  readonly #endpoints: Endpoints;
  readonly #transport: HttpTransport;
  readonly #tokens: Tokens;
  readonly #reached = new Map<string, { readonly registry: ReachedRegistry; readonly until: number }>();
  readonly #breaker = new CircuitBreaker(circuitRules);

  constructor(endpoints: Endpoints, transport: HttpTransport) {
    this.#endpoints = endpoints;
    this.#transport = transport;
    this.#tokens = new Tokens(transport);
  }

  /**
   * Run `use` against the first of the registry's addresses that answers. A mirror that refuses or breaks is passed over.
   * An address that keeps failing (open circuit) is asked only by who has no other way.
   *
   * @throws TransportError of the last address when none answers: of https and plain http the plain attempt's, as in Docker.
   */
  async withRegistry<T>(
    domain: string,
    signal: AbortSignal | undefined,
    use: (registry: ReachedRegistry) => Promise<T>,
    { capability = 'pull', canDoWithout = false }: RegistryNeeds = {},
  ): Promise<T> {
    return this.#withFirst(await this.#orderedCandidates(domain, capability), signal, use, canDoWithout);
  }

  /** As `withRegistry`, but never a mirror: for what changes the registry, and for credentials that are to be proved. */
  async withOrigin<T>(
    domain: string,
    signal: AbortSignal | undefined,
    use: (registry: ReachedRegistry) => Promise<T>,
    capability: Capability = 'pull',
  ): Promise<T> {
    const candidates = await this.#orderedCandidates(domain, capability);
    const own = candidates.filter(({ isMirror }) => !isMirror);
    if (own.length === 0) throw noHosts(capability, domain);
    return this.#withFirst(own, signal, use, false);
  }

  async #withFirst<T>(
    candidates: readonly Endpoint[],
    signal: AbortSignal | undefined,
    use: (registry: ReachedRegistry) => Promise<T>,
    canDoWithout: boolean,
  ): Promise<T> {
    let failure: unknown;
    for (const [at, endpoint] of candidates.entries()) {
      const address = addressOf(endpoint);
      // An open circuit never leads from https to the plain http of the same registry.
      if (canDoWithout || (at < candidates.length - 1 && endpoint.isMirror)) {
        const refusal = this.#breaker.refusal(address);
        if (refusal !== undefined) {
          failure = refusal;
          continue;
        }
      }
      let isReached = false;
      try {
        const registry = await this.reach(endpoint, signal, canDoWithout ? this.impatientMs : pingTimeoutMs);
        isReached = true;
        const result = await use(registry);
        this.#breaker.succeeded(address);
        return result;
      } catch (error) {
        if (error instanceof TransportError) this.#reached.delete(address);
        if (signal?.aborted === true) this.#breaker.abandoned(address);
        else if (isOutage(error)) this.#breaker.failed(address, error);
        else this.#breaker.succeeded(address);
        const isPassedOver = isReached ? endpoint.isMirror : endpoint.isMirror || error instanceof TransportError;
        if (!isPassedOver || signal?.aborted === true) throw error;
        failure = error;
      }
    }
    throw failure;
  }

  /** How long who can do without an answer waits for one. */
  get impatientMs(): number {
    return Math.min(impatientMs, this.#transport.headersTimeoutMs);
  }

  /** Addresses that are spared because they keep failing. */
  get openCircuits(): string[] {
    return this.#breaker.open;
  }

  /** An address that answered before stands for its registry: https is not tried again where plain http was found. */
  async #orderedCandidates(domain: string, capability: Capability): Promise<Endpoint[]> {
    const candidates = await this.#endpoints.candidates(domain, capability);
    const known = candidates.find((it) => !it.isMirror && this.#known(addressOf(it)) !== undefined);
    return known === undefined ? candidates : candidates.filter((it) => it.isMirror || it === known);
  }

  #known(address: string): ReachedRegistry | undefined {
    const known = this.#reached.get(address);
    return known !== undefined && known.until > Date.now() ? known.registry : undefined;
  }

  /** Ask `GET /v2/` how to authenticate; remembered for ten minutes. */
  async reach(endpoint: Endpoint, signal?: AbortSignal, timeoutMs = pingTimeoutMs): Promise<ReachedRegistry> {
    const known = this.#known(addressOf(endpoint));
    // The rest of what is known of it may have changed meanwhile.
    if (known !== undefined) return { ...known, endpoint };
    const response = await this.#transport.send({
      method: 'GET',
      url: apiUrl(endpoint, ''),
      verifyTls: endpoint.verifyTls,
      certificates: endpoint.certificates,
      headersTimeoutMs: timeoutMs,
      signal,
    });
    await discard(response.body);
    const registry = { endpoint, challenges: challengesOf(response) };
    // 400 is what a TLS server says to plain HTTP.
    if (response.status < 500 && ![400, 429].includes(response.status)) {
      this.#reached.set(addressOf(endpoint), { registry, until: Date.now() + reachedForMs });
      dropOldest(this.#reached, maxReached);
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
    const url = typeof wanted.path === 'string' ? apiUrl(endpoint, wanted.path) : wanted.path;
    const isOwn = url.origin === endpoint.origin;
    const send = async (authorization: string | undefined): Promise<HttpResponse> => {
      const request: HttpRequest = {
        method: wanted.method,
        url,
        verifyTls: endpoint.verifyTls || url.host !== endpoint.host,
        certificates: url.host === endpoint.host ? endpoint.certificates : undefined,
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

  /**
   * Prove credentials against `GET /v2/`. Gives the identity token to keep: the one that the registry makes for a password,
   * or its successor, else the one that was given.
   */
  async logIn(registry: ReachedRegistry, credentials: Credentials, signal?: AbortSignal): Promise<string> {
    const { endpoint } = registry;
    const url = apiUrl(endpoint, '');
    const { authorization, identityToken } = await this.#proof(registry, credentials, url, signal);
    const response = await this.#transport.send({
      method: 'GET',
      url,
      verifyTls: endpoint.verifyTls,
      certificates: endpoint.certificates,
      headers: authorization === undefined ? {} : { authorization },
      headersTimeoutMs: pingTimeoutMs,
      signal,
    });
    await discard(response.body);
    if (response.status >= 400) {
      const status = `${response.status} ${response.statusText}`.trim();
      throw new RegistryError(response.status, 'http', `login attempt to ${url.href} failed with status: ${status}`);
    }
    return identityToken;
  }

  async #proof(
    { endpoint, challenges }: ReachedRegistry,
    credentials: Credentials,
    url: URL,
    signal: AbortSignal | undefined,
  ): Promise<{ authorization: string | undefined; identityToken: string }> {
    const { identityToken, registryToken } = credentials;
    if (registryToken !== '') return { authorization: `Bearer ${registryToken}`, identityToken };
    const bearer = challenges.find(({ scheme }) => scheme === 'bearer');
    if (bearer === undefined) {
      const isBasic = challenges.some(({ scheme }) => scheme === 'basic');
      return { authorization: isBasic ? basicAuthorization(credentials) : undefined, identityToken };
    }
    const request = {
      challenge: bearer,
      scope: '',
      credentials,
      ...tlsOfToken(endpoint, bearer),
      offline: true,
      signal,
    };
    this.#tokens.forget(request);
    try {
      const { value, refreshToken } = await this.#tokens.get(request);
      return { authorization: `Bearer ${value}`, identityToken: refreshToken === '' ? identityToken : refreshToken };
    } catch (error) {
      if (!(error instanceof RegistryError)) throw error;
      // The token server's refusal, as Go's client tells it.
      throw new RegistryError(error.status, 'http', `Get "${url.href}": ${error.message}`);
    }
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
        ...tlsOfToken(endpoint, bearer),
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

const addressOf = ({ origin, apiPath }: Endpoint): string => `${origin}${apiPath}`;

/** `path`: below the API's root. */
function apiUrl({ origin, apiPath, namespace }: Endpoint, path: string): URL {
  const url = new URL(`${apiPath}/${path}`, origin);
  if (namespace !== undefined) url.searchParams.set('ns', namespace);
  return url;
}

function tlsOfToken(
  { verifyTls, host, certificates }: Endpoint,
  { parameters }: Challenge,
): Pick<TokenRequest, 'verifyTls' | 'certificates'> {
  const isSameHost = parseUrl(parameters.get('realm') ?? '')?.host === host;
  return { verifyTls, certificates: isSameHost ? certificates : undefined };
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
