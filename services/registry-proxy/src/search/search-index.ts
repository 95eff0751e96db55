import { internal, invalidArgument, isEngineError } from '@flotilla/errors';
import { JsonReader, parseReference } from '@flotilla/oci';
import { basicAuthorization } from '../upstream/credentials.js';
import type { Credentials } from '../upstream/credentials.js';
import type { Endpoint, Endpoints } from '../upstream/endpoints.js';
import { discard, readBounded } from '../upstream/http-transport.js';
import type { HttpResponse, HttpTransport } from '../upstream/http-transport.js';
import type { RegistryClient } from '../upstream/registry-client.js';
import { RegistryError, TransportError } from '../upstream/registry-error.js';

export interface SearchDeps {
  readonly endpoints: Endpoints;
  readonly transport: HttpTransport;
  readonly client: RegistryClient;
}

export interface SearchQuery {
  /** As the user typed it: a registry in front is the one that is asked. */
  readonly term: string;
  /** 1 to 100; 0 means 25. */
  readonly limit: number;
  readonly credentials: Credentials | undefined;
  readonly isOfficial: boolean | undefined;
  readonly isAutomated: boolean | undefined;
  readonly minimumStars: number;
}

export interface FoundImage {
  readonly name: string;
  readonly description: string;
  readonly starCount: number;
  readonly isOfficial: boolean;
}

const hubDomain = 'docker.io';
const hubIndex = 'index.docker.io';
const defaultLimit = 25;
const maxLimit = 100;
const maxResultBytes = 8 * 1024 * 1024;
const json = new JsonReader('search results');

/**
 * Ask a registry's index by the search API of Docker's first registries (moby registry/search.go); none but Docker Hub
 * still has much of it.
 *
 * @throws EngineError `invalidArgument` for a bad term or limit or a registry that is not there; `internal` with Docker's
 * words when it refuses.
 */
export async function searchIndex(deps: SearchDeps, query: SearchQuery, signal: AbortSignal): Promise<FoundImage[]> {
  // No registry marks automated builds any more: nothing passes this filter.
  if (query.isAutomated === true) return [];
  const { term, limit } = query;
  if (term.includes('://')) {
    throw invalidArgument(`invalid repository name: repository name (${term}) should not have a scheme`);
  }
  if (limit < 0 || limit > maxLimit) throw invalidArgument(`limit ${limit} is outside the range of [1, ${maxLimit}]`);
  const { domain, name } = splitTerm(term);
  const path = `/v1/search?${new URLSearchParams({ q: name, n: String(limit === 0 ? defaultLimit : limit) }).toString()}`;
  const response = await askFirst(deps, domain, path, query.credentials, signal);
  if (response.status !== 200) {
    await discard(response.body);
    throw internal(`Unexpected status code ${response.status}`);
  }
  const results = await readResults(response);
  return results.filter(
    (it) =>
      (query.isOfficial === undefined || it.isOfficial === query.isOfficial) && it.starCount >= query.minimumStars,
  );
}

/** The registry that a term names, and what is looked for there. */
function splitTerm(term: string): { domain: string; name: string } {
  const slash = term.indexOf('/');
  const first = slash < 0 ? '' : term.slice(0, slash);
  const isHost = /[.:]/.test(first) || first === 'localhost';
  if (!isHost) return { domain: hubDomain, name: term.replace(/^library\//, '') };
  const name = term.slice(slash + 1);
  // Whatever is no host has no place in a URL.
  const { domain } = parseReference(`${first}/x`);
  return { domain, name: domain === hubDomain ? name.replace(/^library\//, '') : name };
}

/** Only where plain HTTP is allowed there is a second address. */
async function askFirst(
  deps: SearchDeps,
  domain: string,
  path: string,
  credentials: Credentials | undefined,
  signal: AbortSignal,
): Promise<HttpResponse> {
  const failures: TransportError[] = [];
  const endpoints = await indexEndpoints(deps.endpoints, domain);
  for (const endpoint of endpoints) {
    try {
      return await ask(deps, endpoint, new URL(path, endpoint.origin), credentials, signal);
    } catch (error) {
      signal.throwIfAborted();
      if (error instanceof RegistryError) throw internal(error.message, { cause: error });
      if (!(error instanceof TransportError)) throw error;
      failures.push(error);
    }
  }
  throw unreachable(domain, endpoints, failures);
}

async function indexEndpoints(endpoints: Endpoints, domain: string): Promise<Endpoint[]> {
  const own = (await endpoints.candidates(domain)).filter(({ isMirror }) => !isMirror);
  if (domain !== hubDomain) return own;
  return own.map((it) => ({ ...it, origin: `https://${hubIndex}`, host: hubIndex }));
}

async function ask(
  { transport, client }: SearchDeps,
  endpoint: Endpoint,
  url: URL,
  credentials: Credentials | undefined,
  signal: AbortSignal,
): Promise<HttpResponse> {
  if (credentials !== undefined && credentials.identityToken !== '') {
    const registry = await client.reach(endpoint, signal);
    return client.request(registry, {
      method: 'GET',
      path: url,
      scope: 'registry:catalog:search',
      credentials,
      signal,
    });
  }
  const isKnown = credentials !== undefined && credentials.username !== '';
  return transport.send({
    method: 'GET',
    url,
    verifyTls: endpoint.verifyTls,
    ...(endpoint.certificates === undefined ? {} : { certificates: endpoint.certificates }),
    headers: isKnown ? { authorization: basicAuthorization(credentials) } : {},
    signal,
  });
}

async function readResults(response: HttpResponse): Promise<FoundImage[]> {
  try {
    const body = await readBounded(response.body, maxResultBytes);
    if (body === undefined) throw internal('error decoding registry search results: too large');
    return json.objects(json.parse(body), 'results').map((result) => ({
      name: json.string(result, 'name'),
      description: json.string(result, 'description'),
      starCount: json.integer(result, 'star_count'),
      isOfficial: json.boolean(result, 'is_official'),
    }));
  } catch (error) {
    if (isEngineError(error, 'internal')) throw error;
    const reason = error instanceof Error ? error.message : String(error);
    throw internal(`error decoding registry search results: ${reason}`, { cause: error });
  }
}

function unreachable(domain: string, endpoints: readonly Endpoint[], failures: readonly TransportError[]) {
  const [first, second] = failures;
  const text = first?.message ?? 'no address';
  const options = { cause: first };
  if (domain === hubDomain) return internal(text, options);
  if (second !== undefined) {
    return invalidArgument(
      `invalid registry endpoint "${endpoints[1]?.origin ?? ''}/v1/". HTTPS attempt: ${text}. HTTP attempt: ${second.message}`,
      options,
    );
  }
  return invalidArgument(
    `invalid registry endpoint ${endpoints[0]?.origin ?? ''}/v1/: ${text}. If this private registry supports only HTTP or HTTPS with an unknown CA certificate, add \`--insecure-registry ${domain}\` to the daemon's arguments. In the case of HTTPS, if you have access to the registry's CA certificate, no need for the flag; place the CA certificate at /etc/docker/certs.d/${domain}/ca.crt`,
    options,
  );
}
