import { EngineError, internal, messageOf } from '@flotilla/errors';
import { hasCode } from '@flotilla/sys';
import { BlobUnfinished } from './growing-blob.js';

/** Docker's word for a layer that could not be unpacked. */
export function registerError(error: unknown): unknown {
  if (error instanceof BlobUnfinished) return error;
  if (error instanceof EngineError) {
    if (error.kind === 'cancelled') return error;
    return new EngineError(error.kind, `failed to register layer: ${error.message}`, { cause: error });
  }
  const reason = hasCode(error, 'ENOSPC') ? 'no space left on device' : messageOf(error);
  return internal(`failed to register layer: ${reason}`, { cause: error });
}
