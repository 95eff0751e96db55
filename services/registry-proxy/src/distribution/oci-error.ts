import { isEngineError } from '@flotilla/errors';
import type { ErrorKind } from '@flotilla/errors';
import { RegistryError, TransportError } from '../upstream/registry-error.js';

/** A refusal as the distribution API has it: `{"errors":[{code,message,detail}]}`. */
export class OciError extends Error {
  readonly status: number;
  readonly code: string;
  readonly headers: Readonly<Record<string, string>>;

  constructor(status: number, code: string, message: string, headers: Readonly<Record<string, string>> = {}) {
    super(message);
    this.name = 'OciError';
    this.status = status;
    this.code = code;
    this.headers = headers;
  }

  get body(): string {
    return JSON.stringify({ errors: [{ code: this.code, message: this.message, detail: null }] });
  }
}

/** What a request was about, for the code of what is not there. */
export type Subject = 'manifest' | 'blob' | 'name';

const unknownCodes: Readonly<Record<Subject, string>> = {
  manifest: 'MANIFEST_UNKNOWN',
  blob: 'BLOB_UNKNOWN',
  name: 'NAME_UNKNOWN',
};
const kinds: Partial<Record<ErrorKind, readonly [status: number, code: string]>> = {
  invalidArgument: [400, 'NAME_INVALID'],
  unauthenticated: [401, 'UNAUTHORIZED'],
  permissionDenied: [403, 'DENIED'],
  unavailable: [503, 'UNAVAILABLE'],
  dataLoss: [502, 'DIGEST_INVALID'],
};

/** The error as a client of the API is told it; undefined for a bug, which is not told. A 401 still lacks its challenge. */
export function toOciError(error: unknown, subject: Subject): OciError | undefined {
  if (error instanceof OciError) return error;
  if (error instanceof RegistryError) return fromRegistry(error, subject);
  if (error instanceof TransportError) {
    return new OciError(error.isTimeout ? 504 : 502, 'UNAVAILABLE', error.message);
  }
  if (!isEngineError(error)) return undefined;
  if (error.kind === 'notFound') return new OciError(404, unknownCodes[subject], error.message);
  const [status, code] = kinds[error.kind] ?? [500, 'UNKNOWN'];
  return new OciError(status, code, error.message);
}

function fromRegistry(error: RegistryError, subject: Subject): OciError {
  const { status, message, retryAfterMs } = error;
  if (status === 401) return new OciError(401, 'UNAUTHORIZED', message);
  if (status === 403) return new OciError(403, 'DENIED', message);
  if (status === 404) {
    return new OciError(404, error.code === 'name unknown' ? unknownCodes.name : unknownCodes[subject], message);
  }
  if (status === 429) {
    const seconds = Math.ceil((retryAfterMs ?? 1000) / 1000);
    return new OciError(429, 'TOOMANYREQUESTS', message, { 'retry-after': String(seconds) });
  }
  return new OciError(502, 'UNAVAILABLE', message);
}
