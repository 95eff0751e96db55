// Runs one job after the other in a thread of its own: neither the service nor libuv's few pool threads may wait for a file server that is gone.
import { parentPort } from 'node:worker_threads';
import { messageOf } from '@flotilla/errors';
import {
  MNT_DETACH,
  MS_BIND,
  MS_RDONLY,
  MS_REMOUNT,
  ProjectQuotas,
  SysError,
  hasCode,
  mount,
  umount,
} from '@flotilla/sys';
import { adoptProject } from './adopt-project.js';
import { directorySize } from './directory-size.js';
import { isFresh } from './is-fresh.js';
import type { KernelJob, KernelJobMessage, KernelReply, KernelResult } from './kernel-jobs.js';
import type { LocalMount } from './local-options.js';

function perform(job: KernelJob, progress: Int32Array): KernelResult {
  switch (job.kind) {
    case 'mount':
      makeMount(job.target, job.mount);
      return undefined;
    case 'unmount':
      takeOff(job.target);
      return undefined;
    case 'isFresh':
      return isFresh(job.target, job.staging);
    case 'adopt':
      adoptProject(new ProjectQuotas(), job.target, job.project, () => Atomics.add(progress, 0, 1));
      return undefined;
    case 'measure':
      return directorySize(job.target, () => Atomics.add(progress, 0, 1));
  }
}

function makeMount(target: string, { device, fstype, flags, propagation, data }: LocalMount): void {
  mount(device, target, fstype, flags, data === '' ? null : data);
  try {
    if (propagation !== 0) mount(null, target, null, propagation);
    // A bind takes its flags only when it is mounted anew.
    if ((flags & MS_BIND) !== 0 && (flags & MS_RDONLY) !== 0) mount(null, target, null, flags | MS_REMOUNT);
  } catch (error) {
    umount(target, MNT_DETACH);
    throw error;
  }
}

/** The topmost mount; nothing mounted there is fine. */
function takeOff(target: string): void {
  try {
    umount(target, MNT_DETACH);
  } catch (error) {
    if (!hasCode(error, 'EINVAL', 'ENOENT')) throw error;
  }
}

const errnoOf = (error: unknown): number | undefined => {
  if (error instanceof SysError) return error.errno;
  const errno = error instanceof Error && 'errno' in error ? error.errno : undefined;
  return typeof errno === 'number' ? Math.abs(errno) : undefined;
};

parentPort?.on('message', ({ job, progress }: KernelJobMessage) => {
  let reply: KernelReply;
  Atomics.add(progress, 0, 1);
  try {
    reply = { result: perform(job, progress) };
  } catch (error) {
    const errno = errnoOf(error);
    reply = errno === undefined ? { failure: messageOf(error) } : { errno };
  }
  parentPort?.postMessage(reply);
});
