import type { IdPair } from '@flotilla/sys';
import type { IdMap } from './id-map.js';
import type { RootfsLayers } from './mount-rootfs.js';
import type { PinOwners } from './pins.js';
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
  idMap?: IdMap;
}

export interface OpenedRootfs {
  user: ResolvedUser;
}

/** Copy what the image has at `destination` into an empty volume, or one in which that was cut. */
export interface CopyUp {
  op: 'copyUp';
  rootfs: string;
  /** Path in the container, absolute. */
  destination: string;
  /** Directory of the volume on the host. */
  volume: string;
  /** Name of a directory in it, see `copyUp`. */
  staging: string;
  idMap?: IdMap;
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
  owners?: PinOwners;
}

/** Keep a namespace in the bundle, also for services that do not see this one's processes. */
export interface PinNamespace {
  op: 'pinNamespace';
  /** `/proc/<pid>/ns/net`. */
  source: string;
  directory: string;
}

/** Name the NIS domain of a container that is created and not started. */
export interface NameDomain {
  op: 'nameDomain';
  pid: number;
  domainname: string;
}

/** See whether the file system of a directory can hold root file systems that are shown with mapped ids. */
export interface TryIdMap {
  op: 'tryIdMap';
  /** Made and removed. */
  directory: string;
  idMap: IdMap;
  /** False: copies of images will do. */
  needsOverlay: boolean;
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
  idMap?: IdMap;
}

/** Mount memory that several containers can share at a place of the bundle's own. */
export interface MakeSharedMemory {
  op: 'sharedMemory';
  sizeBytes: bigint;
  /** As for `Pin`. */
  directory: string;
  name: string;
  /** Absent: root. */
  owner?: IdPair;
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
  pinNamespace: { job: PinNamespace; result: { path: string } };
  nameDomain: { job: NameDomain; result: null };
  tryIdMap: { job: TryIdMap; result: null };
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
