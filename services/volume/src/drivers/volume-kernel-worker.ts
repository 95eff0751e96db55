// Runs one mount(2) or umount2(2) in a thread of its own: a file server that does not answer must not stop the service.
import { parentPort, workerData } from 'node:worker_threads';
import { MNT_DETACH, MS_BIND, MS_RDONLY, MS_REMOUNT, SysError, mount, umount } from '@flotilla/sys';
import type { MountRequest, MountResult } from './mount-calls.js';

function run(request: MountRequest): void {
  const { target } = request;
  if (request.kind === 'unmount') {
    umount(target, MNT_DETACH);
    return;
  }
  const { device, fstype, flags, propagation, data } = request.mount;
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

let result: MountResult = { errno: 0 };
try {
  run(workerData as MountRequest);
} catch (error) {
  if (!(error instanceof SysError)) throw error;
  result = { errno: error.errno };
}
parentPort?.postMessage(result);
