import { closeSync, readSync, writeSync } from 'node:fs';
import { parentPort } from 'node:worker_threads';
import { EngineError, cancelled, messageOf } from '@flotilla/errors';
import { TarApplier, TarParser, TarWriter, packTree } from '@flotilla/layer-tar';
import { hasCode } from '@flotilla/sys';
import { insideOwner, outsideOwner } from '../rootfs/id-map.js';
import { resolveUserInside } from '../rootfs/look-inside.js';
import type { ArchiveJob, ArchiveReply, ReadJob, StatJob, WriteJob } from './archive-jobs.js';
import { findDirectory, findPath } from './path-in-root.js';
import { PlacedMembers } from './placed-members.js';
import { ViewThread } from './view-thread.js';
import { refuseReadOnly } from './write-rules.js';

// A thread that reads and writes in containers with blocking calls, one job at a time (see ArchiveThreads).

const port = parentPort;
if (port === null) throw new Error('container-archive-worker runs as a worker thread');
const thread = new ViewThread();
const chunk = Buffer.allocUnsafe(256 * 1024);
const post = (reply: ArchiveReply): void => port.postMessage(reply);

port.on('message', (job: ArchiveJob) => {
  try {
    perform(job);
    post({ kind: 'done' });
  } catch (error) {
    post({ kind: 'failed', error: describe(error) });
  }
});

function perform(job: ArchiveJob): void {
  switch (job.op) {
    case 'stat':
      stat(job);
      return;
    case 'read':
      try {
        read(job);
      } finally {
        closeSync(job.outputFd);
      }
      return;
    case 'write':
      try {
        write(job);
      } finally {
        closeSync(job.inputFd);
      }
  }
}

function stat({ view, path }: StatJob): void {
  thread.within(view, () => post({ kind: 'found', info: findPath(bytePath(path)).info }));
}

function read({ view, path, outputFd, stop }: ReadJob): void {
  thread.within(view, () => {
    const { info, real } = findPath(bytePath(path));
    post({ kind: 'found', info });
    const writer = new TarWriter((bytes) => {
      checkStop(stop);
      for (let from = 0; from < bytes.length;) from += writeSync(outputFd, bytes, from);
    });
    const { idMap } = view;
    packTree(real, writer, {
      whiteouts: 'literal',
      name: info.name,
      onEntry: () => checkStop(stop),
      ...(idMap === undefined ? {} : { ownerOf: (owner) => insideOwner(idMap, owner) }),
    });
    writer.finish();
  });
}

function write({ view, path, inputFd, rules, noOverwriteDirNonDir, owner, stop }: WriteJob): void {
  thread.within(view, () => {
    const { idMap } = view;
    const directory = findDirectory(bytePath(path));
    refuseReadOnly(rules, Buffer.from(directory, 'latin1').toString());
    post({ kind: 'found', info: findPath(directory).info });
    const applier = new TarApplier({
      root: '/',
      whiteouts: 'literal',
      umaskIsZero: true,
      noOverwriteDirNonDir,
      ...(owner === '' ? {} : { owner: resolveUserInside(owner, []) }),
      ...(idMap === undefined ? {} : { ownerOf: (inside) => outsideOwner(idMap, inside) }),
    });
    const parser = new TarParser(new PlacedMembers(applier, directory));
    try {
      // To the end, also of what follows the archive: whoever sends it is not to be cut off.
      for (let count = readSync(inputFd, chunk); count > 0; count = readSync(inputFd, chunk)) {
        checkStop(stop);
        parser.write(chunk.subarray(0, count));
      }
      checkStop(stop);
      parser.end();
      applier.finish();
    } finally {
      applier.abort();
    }
  });
}

/** As the tar code has paths: one character per byte. */
const bytePath = (path: string): string => Buffer.from(path).toString('latin1');

function checkStop(stop: Int32Array): void {
  if (Atomics.load(stop, 0) !== 0) throw cancelled('cancelled');
}

function describe(error: unknown): Pick<EngineError, 'kind' | 'message'> {
  if (error instanceof EngineError) return { kind: error.kind, message: error.message };
  if (hasCode(error, 'EPIPE')) return { kind: 'cancelled', message: 'cancelled' };
  if (hasCode(error, 'ENOSPC')) return { kind: 'internal', message: 'no space left on device' };
  return { kind: 'internal', message: messageOf(error) };
}
