import { dataLoss, internal, isEngineError, notFound, permissionDenied, unauthenticated } from '@flotilla/errors';
import type { EngineError } from '@flotilla/errors';
import type { Digest, Reference } from '@flotilla/oci';
import type { HttpResponse } from '../upstream/http-transport.js';
import { NoCredentialsError, RegistryError, TransportError } from '../upstream/registry-error.js';

/** Token scope to change a repository. */
export function pushScope({ path }: Reference): string {
  return `repository:${path}:pull,push`;
}

/** @throws EngineError `dataLoss` when the registry says that it stored something else. */
export function checkStoredDigest(response: HttpResponse, digest: Digest): void {
  const stated = response.headers.get('docker-content-digest');
  if (stated === undefined || stated === digest) return;
  throw dataLoss(`the registry stored ${JSON.stringify(stated.slice(0, 200))} in place of ${digest}`);
}

/** The error as Docker words it for a push (moby distribution/errors.go). Never `unavailable`: that is this service's own death. */
export function toPushError(error: unknown): EngineError {
  if (isEngineError(error)) return error;
  const options = { cause: error };
  if (error instanceof NoCredentialsError) return unauthenticated('no basic auth credentials', options);
  if (error instanceof RegistryError) {
    if (error.code === 'denied' || error.status === 403) return permissionDenied(error.message, options);
    if (error.status === 401) return unauthenticated(error.message, options);
    if (error.status === 404) return notFound(error.message, options);
    return internal(error.message, options);
  }
  if (error instanceof TransportError) return internal(error.message, options);
  throw error;
}
