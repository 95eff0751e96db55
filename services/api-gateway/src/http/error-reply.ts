import { isEngineError } from '@flotilla/errors';
import type { ErrorKind } from '@flotilla/errors';

const STATUS_OF: Readonly<Record<ErrorKind, number>> = {
  invalidArgument: 400,
  unauthenticated: 401,
  permissionDenied: 403,
  notFound: 404,
  alreadyExists: 409,
  conflict: 409,
  unimplemented: 501,
  unavailable: 503,
  dataLoss: 500,
  deadlineExceeded: 500,
  internal: 500,
  cancelled: 499,
};

/** What a client is told of a failure: status and the text of `{"message": ...}`. */
export interface ErrorReply {
  readonly status: number;
  readonly message: string;
  /** A bug: whole error in the log, nothing of it in the reply. */
  readonly isBug: boolean;
}

/** The one place where errors become HTTP. */
export function errorReply(error: unknown): ErrorReply {
  if (!isEngineError(error)) return { status: 500, message: 'internal error', isBug: true };
  return { status: STATUS_OF[error.kind], message: error.message, isBug: false };
}
