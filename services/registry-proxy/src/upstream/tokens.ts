import { JsonReader } from '@flotilla/oci';
import { raceSignal } from '../race-signal.js';
import type { Challenge } from './challenges.js';
import { basicAuthorization, fingerprint } from './credentials.js';
import type { Credentials } from './credentials.js';
import { dropOldest } from './drop-oldest.js';
import { errorOf, readBounded } from './http-transport.js';
import { parseUrl } from './parse-url.js';
import type { CertificateFiles } from './hosts-file.js';
import type { HttpTransport } from './http-transport.js';
import { RegistryError } from './registry-error.js';

export interface Token {
  readonly value: string;
  /** OAuth refresh token, when one was asked for and given. */
  readonly refreshToken: string;
}

interface CachedToken extends Token {
  readonly expiresAt: number;
}

export interface TokenRequest {
  readonly challenge: Challenge;
  /** e.g. `repository:library/busybox:pull`, several with spaces between; empty to log in. */
  readonly scope: string;
  readonly credentials: Credentials | undefined;
  readonly verifyTls: boolean;
  /** Of the registry, for a token server on the same host. */
  readonly certificates?: CertificateFiles | undefined;
  readonly offline?: boolean;
  readonly signal?: AbortSignal | undefined;
}

const clientId = 'flotilla';
const maxTokenBody = 1024 * 1024;
const defaultLifetimeMs = 60_000;
const marginMs = 5_000;
const maxCached = 1000;
const json = new JsonReader('token response');

/** Bearer tokens by the distribution token protocol, cached until shortly before they end; one request per token at a time. */
export class Tokens {
  readonly #transport: HttpTransport;
  readonly #cache = new Map<string, Promise<CachedToken>>();

  constructor(transport: HttpTransport) {
    this.#transport = transport;
  }

  async get(request: TokenRequest): Promise<Token> {
    const key = cacheKey(request);
    const cached = this.#cache.get(key);
    if (cached !== undefined) {
      const token = await raceSignal(
        cached.catch(() => undefined),
        request.signal,
      );
      if (token !== undefined && token.expiresAt > Date.now()) return token;
      if (this.#cache.get(key) === cached) this.#cache.delete(key);
    }
    // The token outlives the caller that asked first: its cancellation must not fail the others.
    const { signal: _, ...shared } = request;
    const fetched = this.#cache.get(key) ?? this.#fetch(shared);
    this.#cache.set(key, fetched);
    fetched.catch(() => this.#cache.delete(key));
    void dropOldest(this.#cache, maxCached);
    return raceSignal(fetched, request.signal);
  }

  /** Drop a token that was refused. */
  forget(request: TokenRequest): void {
    this.#cache.delete(cacheKey(request));
  }

  async #fetch({ challenge, scope, credentials, offline = false, ...tls }: TokenRequest): Promise<CachedToken> {
    const realm = parseUrl(challenge.parameters.get('realm') ?? '');
    if (realm === null || !['http:', 'https:'].includes(realm.protocol)) {
      throw new RegistryError(401, 'unauthorized', 'invalid realm in the challenge of the registry');
    }
    const service = challenge.parameters.get('service') ?? '';
    const identityToken = credentials?.identityToken ?? '';
    if (identityToken !== '') {
      const form = new URLSearchParams({
        grant_type: 'refresh_token',
        refresh_token: identityToken,
        service,
        client_id: clientId,
      });
      if (scope !== '') form.set('scope', scope);
      return this.#read(
        await this.#transport.send({
          method: 'POST',
          url: realm,
          ...tls,
          headers: { 'content-type': 'application/x-www-form-urlencoded' },
          body: form.toString(),
        }),
      );
    }
    if (service !== '') realm.searchParams.set('service', service);
    for (const one of scope.split(' ')) if (one !== '') realm.searchParams.append('scope', one);
    const headers: Record<string, string> = {};
    if (credentials !== undefined && credentials.username !== '') {
      realm.searchParams.set('account', credentials.username);
      headers['authorization'] = basicAuthorization(credentials);
    }
    if (offline) {
      realm.searchParams.set('offline_token', 'true');
      realm.searchParams.set('client_id', clientId);
    }
    return this.#read(await this.#transport.send({ method: 'GET', url: realm, ...tls, headers }));
  }

  async #read(response: Awaited<ReturnType<HttpTransport['send']>>): Promise<CachedToken> {
    if (response.status >= 400) throw await errorOf(response);
    const body = await readBounded(response.body, maxTokenBody);
    const document = json.parse(body ?? '');
    const value = json.string(document, 'token') || json.string(document, 'access_token');
    if (value === '') {
      throw new RegistryError(401, 'unauthorized', 'authorization server did not include a token in the response');
    }
    const seconds = json.integer(document, 'expires_in');
    const lifetime = seconds > 0 ? seconds * 1000 : defaultLifetimeMs;
    return {
      value,
      refreshToken: json.string(document, 'refresh_token'),
      expiresAt: Date.now() + Math.max(lifetime - marginMs, 0),
    };
  }
}

function cacheKey({ challenge, scope, credentials, offline = false }: TokenRequest): string {
  const { parameters } = challenge;
  return JSON.stringify([parameters.get('realm'), parameters.get('service'), scope, fingerprint(credentials), offline]);
}
