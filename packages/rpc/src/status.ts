import { Metadata, status as code } from '@grpc/grpc-js';
import type { ServiceError } from '@grpc/grpc-js';
import { EngineError, isEngineError } from '@flotilla/errors';
import type { ErrorKind } from '@flotilla/errors';
import { describePath } from './method-types.js';
import { decodeStatus, encodeStatus } from './status-details.js';

const detailsKey = 'grpc-status-details-bin';
const domain = 'flotilla';

const codeOf: Readonly<Record<ErrorKind, code>> = {
  invalidArgument: code.INVALID_ARGUMENT,
  unauthenticated: code.UNAUTHENTICATED,
  permissionDenied: code.PERMISSION_DENIED,
  notFound: code.NOT_FOUND,
  alreadyExists: code.ALREADY_EXISTS,
  conflict: code.FAILED_PRECONDITION,
  unimplemented: code.UNIMPLEMENTED,
  unavailable: code.UNAVAILABLE,
  dataLoss: code.DATA_LOSS,
  deadlineExceeded: code.DEADLINE_EXCEEDED,
  internal: code.INTERNAL,
  cancelled: code.CANCELLED,
};

const reasonOf = (kind: ErrorKind): string => kind.replace(/[A-Z]/g, (letter) => `_${letter}`).toUpperCase();
const kindOfReason = new Map(Object.keys(codeOf).map((kind) => [reasonOf(kind as ErrorKind), kind as ErrorKind]));

// A status without our ErrorInfo comes from gRPC itself or from a foreign server.
const kindOfCode = new Map<code, ErrorKind>([
  [code.CANCELLED, 'cancelled'],
  [code.INVALID_ARGUMENT, 'invalidArgument'],
  [code.DEADLINE_EXCEEDED, 'deadlineExceeded'],
  [code.NOT_FOUND, 'notFound'],
  [code.ALREADY_EXISTS, 'alreadyExists'],
  [code.PERMISSION_DENIED, 'permissionDenied'],
  [code.FAILED_PRECONDITION, 'invalidArgument'], // 400 in Docker's own mapping
  [code.ABORTED, 'conflict'],
  [code.OUT_OF_RANGE, 'invalidArgument'],
  [code.UNIMPLEMENTED, 'unimplemented'],
  [code.UNAVAILABLE, 'unavailable'],
  [code.DATA_LOSS, 'dataLoss'],
  [code.UNAUTHENTICATED, 'unauthenticated'],
]);

export interface StatusAnswer {
  code: code;
  details: string;
  metadata: Metadata;
}

/** What the machine lacks, by the codes of Node's and the kernel's errors. The caller can do something about it. */
const machineFailures = new Map([
  ['ENOSPC', 'no space left on device'],
  ['EDQUOT', 'disk quota exceeded'],
  ['EROFS', 'read-only file system'],
  ['EIO', 'input/output error'],
  ['ENOMEM', 'cannot allocate memory'],
  ['EMFILE', 'too many open files'],
  ['ENFILE', 'too many open files in system'],
]);

/**
 * The status that tells `error` to the caller. What is no `EngineError` becomes INTERNAL `internal error`, or what the
 * machine lacks: the rest belongs in the log, not in a reply.
 */
export function toStatus(error: unknown, trailers: Metadata = new Metadata()): StatusAnswer {
  const known = isEngineError(error) ? error : new EngineError('internal', machineFailureOf(error) ?? 'internal error');
  const number = codeOf[known.kind];
  const info = { reason: reasonOf(known.kind), domain, metadata: { ...known.details } };
  trailers.set(detailsKey, encodeStatus(number, known.message, info));
  return { code: number, details: known.message, metadata: trailers };
}

function machineFailureOf(error: unknown): string | undefined {
  const code = error instanceof Error && 'code' in error ? error.code : undefined;
  return typeof code === 'string' ? machineFailures.get(code) : undefined;
}

/** UNAVAILABLE as gRPC itself would say it, without ErrorInfo: the caller may try again elsewhere or later. */
export function plainUnavailable(message: string): StatusAnswer {
  return { code: code.UNAVAILABLE, details: message, metadata: new Metadata() };
}

/** What a call ended with, and whether a service of ours said so or only the connection. */
export interface CallFailure {
  error: EngineError;
  fromService: boolean;
}

/** Restore what the handler threw. `path` and `deadlineMs` make the messages of failures that no handler described. */
export function fromServiceError(failure: unknown, path: string, deadlineMs?: number): CallFailure {
  if (!isServiceError(failure)) {
    return { error: new EngineError('internal', 'internal error', { cause: failure }), fromService: false };
  }
  const status = readDetails(failure);
  const kind = status?.info?.domain === domain ? kindOfReason.get(status.info.reason) : undefined;
  if (status?.info !== undefined && kind !== undefined) {
    return {
      error: new EngineError(kind, status.message, {
        cause: failure,
        details: status.info.metadata,
        isOutside: true,
      }),
      fromService: true,
    };
  }
  const { area, call } = describePath(path);
  const fallback = kindOfCode.get(failure.code) ?? 'internal';
  let message = failure.details;
  if (fallback === 'deadlineExceeded') {
    message = deadlineMs === undefined ? `${call} ran out of time` : `${call} did not answer within ${deadlineMs} ms`;
  } else if (fallback === 'unavailable') message = `the ${area} service is not available`;
  else if (fallback === 'unimplemented') message = `${call} is not implemented`;
  return { error: new EngineError(fallback, message, { cause: failure }), fromService: false };
}

function isServiceError(failure: unknown): failure is ServiceError {
  return failure instanceof Error && 'code' in failure && typeof failure.code === 'number' && 'details' in failure;
}

function readDetails(failure: ServiceError): ReturnType<typeof decodeStatus> | undefined {
  const bytes = (failure.metadata as Metadata | undefined)?.get(detailsKey)[0];
  if (!Buffer.isBuffer(bytes)) return undefined;
  try {
    return decodeStatus(bytes);
  } catch {
    return undefined; // a foreign server's details: its code and message still count
  }
}
