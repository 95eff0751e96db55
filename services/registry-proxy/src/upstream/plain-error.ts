import { internal, isEngineError, notFound, permissionDenied, unauthenticated } from '@flotilla/errors';
import type { EngineError } from '@flotilla/errors';
import { RegistryError, TransportError } from './registry-error.js';

/** The registry's own words with the kind that they mean. Never `unavailable`: that is this service's own death. */
export function toPlainError(error: unknown): EngineError {
  if (isEngineError(error)) return error;
  const options = { cause: error, isOutside: true };
  if (error instanceof RegistryError) {
    if (error.code === 'denied' || error.status === 403) return permissionDenied(error.message, options);
    if (error.status === 401) return unauthenticated(error.message, options);
    if (error.status === 404) return notFound(error.message, options);
    return internal(error.message, options);
  }
  if (error instanceof TransportError) return internal(error.message, options);
  throw error;
}
