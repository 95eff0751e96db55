/**
 * What went wrong, as a closed set. Each kind has one gRPC status (packages/rpc) and one HTTP status (the gateway).
 *
 * - `invalidArgument`: the request is wrong whatever the state
 * - `unauthenticated`: registry or client credentials missing or refused
 * - `permissionDenied`: known caller, forbidden action
 * - `notFound`: no such object
 * - `alreadyExists`: name taken
 * - `conflict`: the current state forbids it; a state change would allow it
 * - `unimplemented`: known, not supported here
 * - `unavailable`: a dependency is down; retry is sensible
 * - `dataLoss`: digest mismatch, truncated stream
 * - `deadlineExceeded`: a call ran out of time; the message names the call and its limit
 * - `internal`: our fault, described
 * - `cancelled`: the caller went away; no reply is written
 */
export const errorKinds = [
  'invalidArgument',
  'unauthenticated',
  'permissionDenied',
  'notFound',
  'alreadyExists',
  'conflict',
  'unimplemented',
  'unavailable',
  'dataLoss',
  'deadlineExceeded',
  'internal',
  'cancelled',
] as const;

export type ErrorKind = (typeof errorKinds)[number];

export interface EngineErrorOptions {
  /** The original failure: kept for logs, never sent to a client. */
  cause?: unknown;
  /** Small facts for programs (shown to nobody): they travel in `google.rpc.ErrorInfo.metadata`. */
  details?: Record<string, string>;
  /**
   * The fault lies outside this process and can be read off the message: the caller's data, a registry, or another
   * service that has logged it. No stack belongs in the log. When absent, as the cause has it.
   */
  isOutside?: boolean;
}

/** A failure with a kind; `message` is the sentence that a `docker` user will read. */
export class EngineError extends Error {
  readonly kind: ErrorKind;
  readonly details: Readonly<Record<string, string>>;
  readonly isOutside: boolean;

  constructor(kind: ErrorKind, message: string, options: EngineErrorOptions = {}) {
    super(message, 'cause' in options ? { cause: options.cause } : undefined);
    this.name = 'EngineError';
    this.kind = kind;
    this.details = options.details ?? {};
    this.isOutside = options.isOutside ?? (options.cause instanceof EngineError && options.cause.isOutside);
  }
}

/** Whether `error` is an `EngineError`, and of `kind` when one is given. */
export function isEngineError(error: unknown, kind?: ErrorKind): error is EngineError {
  return error instanceof EngineError && (kind === undefined || error.kind === kind);
}

const constructorOf =
  (kind: ErrorKind) =>
  (message: string, options?: EngineErrorOptions): EngineError =>
    new EngineError(kind, message, options);

export const invalidArgument = constructorOf('invalidArgument');
export const unauthenticated = constructorOf('unauthenticated');
export const permissionDenied = constructorOf('permissionDenied');
export const notFound = constructorOf('notFound');
export const alreadyExists = constructorOf('alreadyExists');
export const conflict = constructorOf('conflict');
export const unimplemented = constructorOf('unimplemented');
export const unavailable = constructorOf('unavailable');
export const dataLoss = constructorOf('dataLoss');
export const deadlineExceeded = constructorOf('deadlineExceeded');
export const internal = constructorOf('internal');
export const cancelled = constructorOf('cancelled');

/** The message of anything that was thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
