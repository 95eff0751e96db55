import { getSystemErrorMap } from 'node:util';
import { EngineError, internal, messageOf } from '@flotilla/errors';
import { SysError } from '@flotilla/sys';
import type { LocalMount } from './local-options.js';

/**
 * Why a volume cannot be mounted at `target`, in dockerd's words: "mount /src:/dst, flags: 0x1000, data: x: no such file or directory", as moby/sys/mount
 * puts it. Passwords are left out.
 */
export function mountError(target: string, { device, flags, data }: LocalMount, error: unknown): EngineError {
  const kind = error instanceof EngineError ? error.kind : 'internal';
  const what = `error while mounting volume '${target}'`;
  if (!(error instanceof SysError)) return new EngineError(kind, `${what}: ${messageOf(error)}`, { cause: error });
  const parts = [`mount ${device}:${target}`];
  if (flags !== 0) parts.push(`flags: 0x${flags.toString(16)}`);
  if (data !== '') parts.push(`data: ${data.replace(/(^|,)(pass(?:word)?2?)=[^,]*/g, '$1$2=********')}`);
  return internal(`${what}: failed to mount local volume: ${parts.join(', ')}: ${reasonOf(error)}`, { cause: error });
}

/** The system's sentence: "ENOSPC: no space left on device, mkdir '/x'" -> "no space left on device". */
export function reasonOf(error: unknown): string {
  if (error instanceof SysError) return getSystemErrorMap().get(-error.errno)?.[1] ?? `errno ${error.errno}`;
  return /^[A-Z0-9]+: (.*?), /.exec(messageOf(error))?.[1] ?? messageOf(error);
}
