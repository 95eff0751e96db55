import type { FileTime } from '@flotilla/sys';

export type TarEntryType = 'file' | 'hardlink' | 'symlink' | 'char' | 'block' | 'directory' | 'fifo';

/** A stretch of a sparse file that holds data; the rest are holes. */
export interface SparseFragment {
  offset: number;
  length: number;
}

/**
 * One member of an archive. Names and attribute values are bytes: latin1 strings, one character per byte, to be turned
 * back with `Buffer.from(name, 'latin1')`.
 */
export interface TarEntry {
  /** As it stands in the archive: may be absolute or hold `..`; whoever touches a file system must contain it. */
  name: string;
  type: TarEntryType;
  /** Permission bits, 0-07777. */
  mode: number;
  uid: number;
  gid: number;
  /** Bytes of the file's content, holes included; 0 for everything but files. */
  size: number;
  mtime: FileTime;
  /** Target of a symbolic or hard link, else empty. */
  linkname: string;
  devmajor: number;
  devminor: number;
  xattrs: [name: string, value: string][];
  /** For sparse files: where the data belongs, ascending and disjoint. */
  sparse?: SparseFragment[];
}

/** Receives what a parser finds; all calls are synchronous and in archive order. */
export interface TarSink {
  entry(entry: TarEntry): void;
  /** Content of the file announced last, at `offset` in it. The bytes are only valid during the call. */
  data(bytes: Buffer, offset: number): void;
  /** The file announced last is complete. Called for files only, also for empty ones. */
  endEntry(): void;
}
