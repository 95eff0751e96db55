export {
  EngineError,
  alreadyExists,
  cancelled,
  conflict,
  dataLoss,
  deadlineExceeded,
  errorKinds,
  internal,
  invalidArgument,
  isEngineError,
  messageOf,
  notFound,
  permissionDenied,
  unauthenticated,
  unavailable,
  unimplemented,
} from './engine-error.js';
export type { EngineErrorOptions, ErrorKind } from './engine-error.js';
