import { RuntimeFailure } from './runtime.js';
import { TtrpcError } from './ttrpc-client.js';

/**
 * Tell from a runtime's text how the docker CLI ends. Only texts about the program (`exec: "..."`) and its working directory count: a
 * missing mount source says "no such file" too. Source: moby/moby daemon/errors.go, setExitCodeFromError.
 */
export function exitCodeOfRuntimeError(text: string): 125 | 126 | 127 {
  // The runtime itself cannot be run.
  if (text.includes('unable to retrieve OCI runtime error')) return 125;
  if (text.includes('executable file not found in $PATH')) return 127;
  const about = /exec: \\?"|chdir to cwd/.exec(text);
  if (about === null) return 125;
  const rest = text.slice(about.index);
  if (rest.includes('no such file or directory')) return 127;
  if (rest.includes('permission denied') || rest.includes('is a directory') || rest.includes('exec format error')) {
    return 126;
  }
  return 125;
}

/** Whatever Create or Start threw, as a RuntimeFailure in dockerd's words. */
export function runtimeFailure(error: unknown): RuntimeFailure {
  if (error instanceof RuntimeFailure) return error;
  const text = error instanceof Error ? error.message : String(error);
  if (error instanceof TtrpcError) {
    const message = `failed to create task for container: failed to create shim task: ${text}${hintFor(text)}`;
    return new RuntimeFailure(exitCodeOfRuntimeError(text), message, { cause: error });
  }
  return new RuntimeFailure(125, text, { cause: error });
}

function hintFor(text: string): string {
  if (!text.includes('not a directory')) return '';
  return ': Are you trying to mount a directory onto a file (or vice-versa)? Check if the specified host path exists and is the expected type';
}
