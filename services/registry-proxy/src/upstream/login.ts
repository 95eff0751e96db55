import { internal, invalidArgument, unauthenticated } from '@flotilla/errors';
import type { Credentials } from './credentials.js';
import { parseUrl } from './parse-url.js';
import type { RegistryClient } from './registry-client.js';
import { RegistryError, TransportError } from './registry-error.js';

const hubNames = new Set(['', 'docker.io', 'index.docker.io', 'registry-1.docker.io', 'registry.hub.docker.com']);

/**
 * Host of a registry as `docker login` sends it: a host, or a URL such as `https://index.docker.io/v1/`.
 *
 * @throws EngineError `invalidArgument` for what is no host.
 */
export function registryDomain(serverAddress: string): string {
  const host = serverAddress.replace(/^https?:\/\//, '').split('/')[0] ?? '';
  if (hubNames.has(host)) return 'docker.io';
  const url = parseUrl(`https://${host}/`);
  if (url === null || url.host === '' || url.username !== '' || /[?#@\s]/.test(host)) {
    throw invalidArgument(`unable to parse server address: ${JSON.stringify(serverAddress.slice(0, 200))}`);
  }
  return host;
}

/**
 * Check credentials against their registry; gives an identity token where the registry makes one.
 *
 * @throws EngineError `unauthenticated` when they are refused, `internal` when the registry cannot be asked.
 */
export async function authenticate(
  client: RegistryClient,
  credentials: Credentials,
  signal: AbortSignal,
): Promise<string> {
  try {
    return await client.withOrigin(registryDomain(credentials.serverAddress), signal, (registry) =>
      client.logIn(registry, credentials, signal),
    );
  } catch (error) {
    if (error instanceof RegistryError && [401, 403].includes(error.status)) {
      throw unauthenticated(error.message, { cause: error });
    }
    if (error instanceof RegistryError || error instanceof TransportError) {
      throw internal(error.message, { cause: error, isOutside: true });
    }
    throw error;
  }
}
