import { dataLoss, unauthenticated } from '@flotilla/errors';
import type { EngineError } from '@flotilla/errors';
import type { Digest, Reference } from '@flotilla/oci';
import type { HttpResponse } from '../upstream/http-transport.js';
import { toPlainError } from '../upstream/plain-error.js';
import { NoCredentialsError } from '../upstream/registry-error.js';

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

/** The error as Docker words it for a push (moby distribution/errors.go). */
export function toPushError(error: unknown): EngineError {
  if (error instanceof NoCredentialsError) return unauthenticated('no basic auth credentials', { cause: error });
  return toPlainError(error);
}
