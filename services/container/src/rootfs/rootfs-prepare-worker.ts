import { mkdirSync, rmdirSync } from 'node:fs';
import { parentPort } from 'node:worker_threads';
import { isEngineError } from '@flotilla/errors';
import { hasCode, umountAll } from '@flotilla/sys';
import { copyUp } from './copy-up.js';
import { makeDockerEnv, makeWorkingDir, resolveUserInside } from './look-inside.js';
import { mountRootfs } from './mount-rootfs.js';
import { makeImagePin, makePin, mountSharedMemory, pinDirectory, removePins } from './pins.js';
import type { JobMessage, JobReply, OpenRootfs, OpenedRootfs, RootfsJob } from './rootfs-jobs.js';
import { ThreadRoot } from './thread-root.js';

const port = parentPort;
if (port === null) throw new Error('rootfs-prepare-worker runs as a worker thread');
const root = new ThreadRoot();

port.on('message', ({ id, job }: JobMessage) => {
  port.postMessage(answer(id, job));
});

function answer(id: number, job: RootfsJob): JobReply {
  try {
    return { id, result: perform(job) };
  } catch (error) {
    const kind = isEngineError(error) ? error.kind : undefined;
    return { id, error: { kind, message: error instanceof Error ? error.message : String(error) } };
  }
}

function perform(job: RootfsJob): unknown {
  switch (job.op) {
    case 'open':
      return open(job);
    case 'copyUp':
      return { entries: copyUp(root, job.rootfs, job.destination, job.volume) };
    case 'pin':
      return { path: makePin(job.base, job.path, job.directory, job.name) };
    case 'pinImage':
      return { path: makeImagePin(job.lower, job.path, job.directory, job.name) };
    case 'sharedMemory':
      return { path: mountSharedMemory(job.sizeBytes, job.directory, job.name) };
    case 'close':
      removePins(pinDirectory(job.target));
      close(job.target);
      return null;
    case 'resolveUser':
      return root.within(job.rootfs, undefined, () => resolveUserInside(job.user, job.groups));
  }
}

function open(job: OpenRootfs): OpenedRootfs {
  mkdirSync(job.target, { recursive: true, mode: 0o755 });
  mountRootfs(job, job.target);
  try {
    return root.within(job.target, undefined, () => {
      const user = resolveUserInside(job.user, job.groups);
      makeDockerEnv();
      if (job.workingDir !== '') makeWorkingDir(job.workingDir);
      return { user };
    });
  } catch (error) {
    close(job.target);
    throw error;
  }
}

function close(target: string): void {
  umountAll(target);
  try {
    rmdirSync(target);
  } catch (error) {
    if (!hasCode(error, 'ENOENT')) throw error;
  }
}
