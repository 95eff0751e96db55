import type { RootfsLayers } from './mount-rootfs.js';
import type { ResolvedUser } from './user-spec.js';

/** Mount a container's root file system and look into it. */
export interface OpenRootfs extends RootfsLayers {
  op: 'open';
  target: string;
  /** Path inside the image, absolute; made when it is missing. Empty: nothing to make. */
  workingDir: string;
  /** `user[:group]`. */
  user: string;
  groups: string[];
}

export interface OpenedRootfs {
  user: ResolvedUser;
}

/** Copy what the image has at `destination` into an empty volume. */
export interface CopyUp {
  op: 'copyUp';
  rootfs: string;
  /** Path in the container, absolute. */
  destination: string;
  /** Directory of the volume on the host. */
  volume: string;
}

/** Show a directory or file below `base` at a place of the bundle's own, where nobody can change what it means. */
export interface Pin {
  op: 'pin';
  /** Directory on the host that `path` must not lead out of. */
  base: string;
  /** Relative. */
  path: string;
  /** Directory for pins, beside the root file system; made when it is missing. */
  directory: string;
  /** File name in it. */
  name: string;
}

/** Show what an image holds, or a directory or file of it, read-only at a place of the bundle's own. */
export interface PinImage {
  op: 'pinImage';
  /** Topmost first. */
  lower: string[];
  /** Relative; empty: all of it. */
  path: string;
  /** As for `Pin`. */
  directory: string;
  name: string;
}

/** Mount memory that several containers can share at a place of the bundle's own. */
export interface MakeSharedMemory {
  op: 'sharedMemory';
  sizeBytes: bigint;
  /** As for `Pin`. */
  directory: string;
  name: string;
}

/** Unmount a root file system and all pins beside it, and remove the directory that held it; fine when it is not there. */
export interface CloseRootfs {
  op: 'close';
  target: string;
}

/** Look a user up in the files of a mounted root file system. */
export interface ResolveUser {
  op: 'resolveUser';
  rootfs: string;
  /** `user[:group]`. */
  user: string;
  groups: string[];
}

/** What is asked of the worker, and what it answers. */
export interface RootfsJobs {
  open: { job: OpenRootfs; result: OpenedRootfs };
  copyUp: { job: CopyUp; result: { entries: number } };
  pin: { job: Pin; result: { path: string } };
  pinImage: { job: PinImage; result: { path: string } };
  sharedMemory: { job: MakeSharedMemory; result: { path: string } };
  close: { job: CloseRootfs; result: null };
  resolveUser: { job: ResolveUser; result: ResolvedUser };
}

export type RootfsJob = RootfsJobs[keyof RootfsJobs]['job'];

export interface JobMessage {
  id: number;
  job: RootfsJob;
}

export interface JobReply {
  id: number;
  result?: unknown;
  /** `kind` is an `ErrorKind` for what a user may read. */
  error?: { kind: string | undefined; message: string };
}
