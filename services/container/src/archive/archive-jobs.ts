import type { ErrorKind } from '@flotilla/errors';
import type { FileTime } from '@flotilla/sys';
import type { IdMap } from '../rootfs/id-map.js';
import type { RootfsLayers } from '../rootfs/mount-rootfs.js';

/** The root file system of a container that runs, with everything mounted in it but the kernel's file systems. */
export interface RunningView {
  kind: 'running';
  /** Of its init. */
  pid: number;
  /** Where it is mounted on the host: by that the container's namespace is recognised. */
  rootfs: string;
  /** Destinations that the user has mounts on: shown even where the kernel's file systems usually are. */
  destinations: string[];
  /** Absent: as they are. */
  idMap?: IdMap;
}

/** A host path shown in a container that does not run. */
export interface ViewMount {
  source: string;
  destination: string;
  readOnly: boolean;
  recursive: boolean;
}

/** The root file system of a container that does not run: mounted by the thread that looks at it, for nobody else to see. */
export interface StoppedView {
  kind: 'stopped';
  layers: RootfsLayers;
  /** An empty directory. */
  target: string;
  readOnly: boolean;
  /** Outer before inner. */
  mounts: ViewMount[];
  /** Absent: as they are. */
  idMap?: IdMap;
}

export type ContainerView = RunningView | StoppedView;

/** What a path is, as `docker cp` asks for it. */
export interface PathInfo {
  /** Last part of the path: `.` after a closing `/.`, `/` for the root. */
  name: string;
  size: number;
  /** Go's os.FileMode bits. */
  mode: number;
  mtime: FileTime;
  /** Where a symbolic link leads to in the end, absolute; else empty. */
  linkTarget: string;
}

/** Who may be written to: the mount that a path lies in, innermost first, else the root file system. */
export interface WriteRules {
  mounts: { destination: string; readOnly: boolean }[];
  readOnlyRootfs: boolean;
}

interface JobOn {
  view: ContainerView;
  /** As given. */
  path: string;
  /** Set to 1 to end the job. */
  stop: Int32Array;
}

export interface StatJob extends JobOn {
  op: 'stat';
}
/** Sends a `PathInfo` before anything is written to `outputFd`, which the thread closes. */
export interface ReadJob extends JobOn {
  op: 'read';
  outputFd: number;
}
/** Sends a `PathInfo` before anything is read from `inputFd`, a plain tar; the thread closes it. */
export interface WriteJob extends JobOn {
  op: 'write';
  inputFd: number;
  rules: WriteRules;
  noOverwriteDirNonDir: boolean;
  /** `user[:group]` of the container, to whom everything is given; empty: the owners of the archive. */
  owner: string;
}

export type ArchiveJob = StatJob | ReadJob | WriteJob;

/** What a thread answers: perhaps a `found`, then one of the others. */
export type ArchiveReply =
  | { kind: 'found'; info: PathInfo }
  | { kind: 'done' }
  | { kind: 'failed'; error: { kind: ErrorKind; message: string } };

/** The path does not exist; the domain has the sentence for it. */
export const noSuchPath = 'no such path';
