import { EngineError, internal, invalidArgument, isEngineError, messageOf } from '@flotilla/errors';
import { RuntimeFailure } from '../runtime/runtime.js';

/** Why a start failed, as the record and the client show it. */
export interface StartFailure {
  /** 126, 127, or 128 for anything else: `State.ExitCode`. */
  exitCode: number;
  /** `State.Error`. */
  message: string;
  /** For the client. */
  error: EngineError;
}

/** dockerd's sentence, exit code and status for whatever a start ran into. */
export function describeStartFailure(failure: unknown): StartFailure {
  if (failure instanceof RuntimeFailure) {
    const { message } = failure;
    const known = failure.exitCode === 126 || failure.exitCode === 127;
    const error = known ? invalidArgument(message, { cause: failure }) : internal(message, { cause: failure });
    return { exitCode: known ? failure.exitCode : 128, message, error };
  }
  const error = isEngineError(failure)
    ? failure
    : internal(`failed to start the container: ${messageOf(failure)}`, { cause: failure });
  return { exitCode: 128, message: error.message, error };
}
