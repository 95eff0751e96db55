import { closeSync, mkdirSync, openSync, rmdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { parentPort } from 'node:worker_threads';
import { isEngineError } from '@flotilla/errors';
import { CLONE_NEWUTS, hasCode, type IdPair, setDomainName, setns, tryOverlay, umountAll } from '@flotilla/sys';
import { copyUp } from './copy-up.js';
import { makeDockerEnv, makeWorkingDir, resolveUserInside } from './look-inside.js';
import { asRootOf, knownOwner } from './id-map.js';
import { mountMappedOverlay, showMapped } from './mapped-overlay.js';
import { mountRootfs } from './mount-rootfs.js';
import { makeImagePin, makePin, mountSharedMemory, pinDirectory, pinNamespace, removePins } from './pins.js';
import type {
  CopyUp,
  JobMessage,
  JobReply,
  NameDomain,
  OpenRootfs,
  OpenedRootfs,
  RootfsJob,
  TryIdMap,
} from './rootfs-jobs.js';
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
      return asRootOf(job.idMap, () => ({ entries: copyInto(job) }));
    case 'pin':
      return { path: makePin(job.base, job.path, job.directory, job.name, job.owners) };
    case 'pinImage':
      return { path: makeImagePin(job.lower, job.path, job.directory, job.name, job.idMap) };
    case 'sharedMemory':
      return { path: mountSharedMemory(job.sizeBytes, job.directory, job.name, job.owner) };
    case 'pinNamespace':
      return { path: pinNamespace(job.source, job.directory) };
    case 'nameDomain':
      nameDomain(job);
      return null;
    case 'tryIdMap':
      tryIdMap(job);
      return null;
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
  mountRootfs(job, job.target, job.idMap);
  try {
    return root.within(job.target, undefined, () =>
      asRootOf(job.idMap, () => {
        const user = resolveUserInside(job.user, job.groups);
        makeDockerEnv();
        if (job.workingDir !== '') makeWorkingDir(job.workingDir);
        return { user };
      }),
    );
  } catch (error) {
    close(job.target);
    throw error;
  }
}

function copyInto({ rootfs, destination, volume, staging, idMap }: CopyUp): number {
  const ownerOf = idMap === undefined ? undefined : (owner: IdPair) => knownOwner(idMap, owner);
  return copyUp(root, rootfs, destination, { volume, staging, ownerOf });
}

function nameDomain({ pid, domainname }: NameDomain): void {
  const outside = openSync('/proc/thread-self/ns/uts', 'r');
  try {
    const inside = openSync(`/proc/${pid}/ns/uts`, 'r');
    try {
      setns(inside, CLONE_NEWUTS);
      setDomainName(domainname);
    } finally {
      closeSync(inside);
      setns(outside, CLONE_NEWUTS);
    }
  } finally {
    closeSync(outside);
  }
}

/** Mount a root file system, write to it, and take everything away again. */
function tryIdMap({ directory, idMap, needsOverlay }: TryIdMap): void {
  const [lower, upper, work, target] = ['lower', 'upper', 'work', 'target'].map((name) => join(directory, name)) as [
    string,
    string,
    string,
    string,
  ];
  // A service that was killed here left it mounted.
  umountAll(target);
  rmSync(directory, { recursive: true, force: true });
  try {
    for (const part of [lower, upper, work, target]) mkdirSync(part, { recursive: true });
    const canOverlay = needsOverlay && isOverlayPossible(lower, upper, work);
    if (canOverlay) mountMappedOverlay({ lower: [lower], writable: { upper, work } }, target, idMap);
    else showMapped(upper, target, idMap);
    asRootOf(idMap, () => mkdirSync(join(target, 'made')));
  } finally {
    umountAll(target);
    rmSync(directory, { recursive: true, force: true });
  }
}

/** Where there can be none at all, the image service makes copies. */
function isOverlayPossible(lower: string, upper: string, work: string): boolean {
  try {
    tryOverlay(lower, upper, work);
    return true;
  } catch {
    return false;
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
