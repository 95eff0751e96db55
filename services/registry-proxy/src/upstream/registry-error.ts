import { internal, isEngineError, notFound, unauthenticated } from '@flotilla/errors';
import type { EngineError } from '@flotilla/errors';

/** An answer of a registry that means no, in the words of the distribution API. */
export class RegistryError extends Error {
  /** HTTP status. */
  readonly status: number;
  /** Error code of the API in Docker's spelling, e.g. `manifest unknown`, `denied`, `unauthorized`, `toomanyrequests`; `http` for anything unspoken. */
  readonly code: string;
  /** What a Retry-After header asked for. */
  readonly retryAfterMs: number | undefined;

  constructor(status: number, code: string, message: string, retryAfterMs?: number) {
    super(code === 'http' ? message : `${code}: ${message}`);
    this.name = 'RegistryError';
    this.status = status;
    this.code = code;
    this.retryAfterMs = retryAfterMs;
  }

  get isRetryable(): boolean {
    return this.status === 429 || this.status >= 500;
  }
}

/** The registry wants a user and a password, and there are none. */
export class NoCredentialsError extends RegistryError {
  constructor(message: string) {
    super(401, 'http', message);
    this.name = 'NoCredentialsError';
  }
}

/** No usable answer at all: refused, reset, timed out, bad TLS. */
export class TransportError extends Error {
  readonly isRetryable: boolean;
  /** There was no connection at all: no such name, refused, no route. */
  readonly isUnreachable: boolean;
  /** It had its time. */
  readonly isTimeout: boolean;

  constructor(
    message: string,
    options: { isRetryable: boolean; isUnreachable?: boolean; isTimeout?: boolean; cause?: unknown },
  ) {
    super(message, { cause: options.cause });
    this.name = 'TransportError';
    this.isRetryable = options.isRetryable;
    this.isUnreachable = options.isUnreachable ?? false;
    this.isTimeout = options.isTimeout ?? false;
  }
}

/** Whether trying again later may help. */
export function isRetryable(error: unknown): boolean {
  return (error instanceof RegistryError || error instanceof TransportError) && error.isRetryable;
}

/**
 * Whether the registry does not do its work: not reached, silent, broken or overloaded. What it refuses, a certificate
 * that is not trusted and answers that make no sense are none.
 */
export function isOutage(error: unknown): boolean {
  if (error instanceof TransportError) return error.isRetryable || error.isUnreachable;
  return error instanceof RegistryError && error.isRetryable;
}

const maxErrorBody = 64 * 1024;
const codeNames: ReadonlyMap<string, string> = new Map([['TOOMANYREQUESTS', 'toomanyrequests']]);
const statusCodes: ReadonlyMap<number, readonly [code: string, message: string]> = new Map([
  [401, ['unauthorized', 'authentication required']],
  [403, ['denied', 'requested access to the resource is denied']],
  [429, ['toomanyrequests', 'too many requests']],
]);

/** What a response with a status of 400 or more says. The body's `errors` (or `details`) win over the status. */
export function readRegistryError(
  status: number,
  statusText: string,
  headers: { readonly retryAfter: string | undefined; readonly challenge: string | undefined },
  body: string,
): RegistryError {
  const retryAfterMs = parseRetryAfter(headers.retryAfter);
  // RFC 6750 section 3: a token that does not reach far enough. Docker reads it before the body.
  if (/\berror="insufficient_scope"/.test(headers.challenge ?? '')) {
    return new RegistryError(status, 'denied', 'requested access to the resource is denied', retryAfterMs);
  }
  const told = status < 500 || body.startsWith('{') ? readBody(body) : undefined;
  if (told !== undefined) {
    const [fallbackCode, fallbackMessage] = statusCodes.get(status) ?? ['unknown', 'unknown error'];
    const code = told.code === '' ? fallbackCode : spell(told.code);
    return new RegistryError(status, code, told.message === '' ? fallbackMessage : told.message, retryAfterMs);
  }
  const known = statusCodes.get(status);
  if (known !== undefined) return new RegistryError(status, known[0], known[1], retryAfterMs);
  const text = `${status} ${statusText}`.trim();
  return new RegistryError(status, 'http', `received unexpected HTTP status: ${text}`, retryAfterMs);
}

const spell = (code: string): string => codeNames.get(code) ?? code.toLowerCase().replaceAll('_', ' ');

function readBody(text: string): { code: string; message: string } | undefined {
  if (text.length > maxErrorBody) return undefined;
  let body: unknown;
  try {
    body = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (typeof body !== 'object' || body === null) return undefined;
  const { errors, details } = body as { errors?: unknown; details?: unknown };
  if (typeof details === 'string' && details !== '') return { code: '', message: printable(details) };
  const first: unknown = Array.isArray(errors) ? errors[0] : undefined;
  if (typeof first !== 'object' || first === null) return undefined;
  const { code, message } = first as { code?: unknown; message?: unknown };
  if (typeof code !== 'string' || !/^[A-Z_]{1,64}$/.test(code)) return undefined;
  return { code, message: typeof message === 'string' ? printable(message) : '' };
}

/** A registry's text is shown on terminals: no control characters, bounded. */
function printable(text: string): string {
  return text.replaceAll(/[\p{Cc}\p{Cf}]+/gu, ' ').slice(0, 1024);
}

function parseRetryAfter(header: string | undefined): number | undefined {
  if (header === undefined) return undefined;
  const seconds = /^\d{1,6}$/.test(header) ? Number(header) : (Date.parse(header) - Date.now()) / 1000;
  return Number.isFinite(seconds) ? Math.max(0, seconds * 1000) : undefined;
}

/** What was asked for, for the sentence that the user reads. */
export interface Subject {
  /** Familiar name of the repository. */
  readonly name: string;
  /** Familiar reference with tag or digest. */
  readonly reference: string;
}

/** The error as Docker words it for a pull (moby distribution/errors.go). */
export function toPullError(error: unknown, { name, reference }: Subject): EngineError {
  if (isEngineError(error)) return error;
  if (error instanceof RegistryError) {
    const options = { cause: error, isOutside: true };
    switch (error.code) {
      case 'denied':
        return notFound(
          `pull access denied for ${name}, repository does not exist or may require 'docker login': ${error.message}`,
          options,
        );
      case 'manifest unknown':
        return notFound(`manifest for ${reference} not found: ${error.message}`, options);
      case 'name unknown':
        return notFound(`repository ${name} not found: ${error.message}`, options);
      case 'blob unknown':
        return notFound('unknown blob', options);
      default:
        if (error.status === 401) return unauthenticated(error.message, options);
        if (error.status === 404) return notFound(`manifest for ${reference} not found: ${error.message}`, options);
        return internal(error.message, options);
    }
  }
  if (error instanceof TransportError) return internal(error.message, { cause: error, isOutside: true });
  throw error;
}
