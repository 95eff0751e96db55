import { getSystemErrorMap } from 'node:util';
import { deadlineExceeded, internal } from '@flotilla/errors';
import type { EngineError } from '@flotilla/errors';
import { startWorker } from '@flotilla/sys';
import type { LocalMount } from './local-options.js';

export type MountRequest = { kind: 'mount'; target: string; mount: LocalMount } | { kind: 'unmount'; target: string };

export interface MountResult {
  /** 0 for success. */
  errno: number;
}

/** A mount that takes longer is given up; its thread is left to the kernel. */
const mountLimitMs = 60_000;

/** @throws EngineError with the text that dockerd has for the same failure. */
export async function mountVolume(target: string, mount: LocalMount): Promise<void> {
  const { errno } = await call({ kind: 'mount', target, mount });
  if (errno !== 0) throw mountError(target, mount, errno);
}

/** Take the topmost mount off `target`; nothing mounted there is fine. */
export async function unmountVolume(target: string): Promise<void> {
  const { errno } = await call({ kind: 'unmount', target });
  const code = systemError(errno)?.[0];
  if (errno !== 0 && code !== 'EINVAL' && code !== 'ENOENT') {
    throw internal(`unmount ${target}: ${systemError(errno)?.[1] ?? `errno ${errno}`}`);
  }
}

function call(request: MountRequest): Promise<MountResult> {
  return new Promise((resolve, reject) => {
    const worker = startWorker('volume-mount-worker', import.meta.url, { workerData: request });
    const timer = setTimeout(() => {
      worker.unref();
      reject(deadlineExceeded(`${request.kind} ${request.target}: no answer within ${mountLimitMs / 1000} seconds`));
    }, mountLimitMs);
    worker.once('message', (result: MountResult) => {
      clearTimeout(timer);
      resolve(result);
    });
    worker.once('error', (error) => {
      clearTimeout(timer);
      reject(error instanceof Error ? error : internal('the mount thread failed', { cause: error }));
    });
    // After a message this changes nothing.
    worker.once('exit', () => {
      clearTimeout(timer);
      reject(internal('the mount thread ended without an answer'));
    });
  });
}

const systemError = (errno: number) => getSystemErrorMap().get(-errno);
// "mount /src:/dst, flags: 0x1000, data: x: no such file or directory", as moby/sys/mount words it.
function mountError(target: string, { device, flags, data }: LocalMount, errno: number): EngineError {
  const text = systemError(errno)?.[1] ?? `errno ${errno}`;
  const parts = [`mount ${device}:${target}`];
  if (flags !== 0) parts.push(`flags: 0x${flags.toString(16)}`);
  if (data !== '') parts.push(`data: ${data}`);
  return internal(
    `error while mounting volume '${target}': failed to mount local volume: ${parts.join(', ')}: ${text}`,
  );
}
