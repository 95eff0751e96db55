import type { LogDriver } from '@flotilla/config';
import type { RemoteConfig } from './options/remote-config.js';

/** Where a container's output is kept and sent. */
export interface LogSinkConfig {
  readonly driver: LogDriver;
  /**
   * The current file; older ones are `<path>.1`, `<path>.2`, compressed ones `<path>.2.gz`. Its directory is made when it does not exist. What goes to
   * another machine goes through a file too: it waits there, and `docker logs` reads it. Unused by `none`.
   */
  readonly path: string;
  /** Begin a new file when the current one has this many bytes (option `max-size`). Absent: never. */
  readonly maxSizeBytes?: number;
  /** How many files there are at most, the current one included (option `max-file`, at least 1). Absent: 1. */
  readonly maxFiles?: number;
  /** Compress what was rotated (option `compress`). */
  readonly compress?: boolean;
  /** Written with each line and shown by `docker logs --details` (options `tag`, `labels`, `env`). */
  readonly attributes?: Readonly<Record<string, string>>;
  /** False: the files are not for `docker logs` (driver `none`, option `cache-disabled`). Absent: true. */
  readonly isReadable?: boolean;
  /** Where each line is sent to as well. */
  readonly remote?: RemoteConfig;
  /** When more than this waits to be sent, the oldest of it is given up. Absent: as much as the files hold. */
  readonly maxBacklogBytes?: number;
}

/** What `docker logs` asks for. */
export interface LogReadOptions {
  readonly stdout: boolean;
  readonly stderr: boolean;
  /** The container had a terminal: bytes come raw instead of in stdcopy frames. */
  readonly terminal: boolean;
  /** Lines at or after this time, in nanoseconds since the epoch. */
  readonly since?: bigint;
  /** Lines at or before this time, in nanoseconds since the epoch. */
  readonly until?: bigint;
  /** The last `tail` lines. Absent: all. Not used together with `position`. */
  readonly tail?: number;
  /** Put the time and a space before each line. */
  readonly timestamps: boolean;
  /** Put the attributes before each line. */
  readonly details: boolean;
  /** Go on with what is written until the container's output ends. */
  readonly follow: boolean;
  /** From an earlier batch: go on right after it. */
  readonly position?: string;
  /** Read no further than this place. Not used together with `follow`. */
  readonly stopAt?: string;
  /** One frame for each line, as dockerd sends them. Absent: lines of one stream that follow each other share a frame. */
  readonly framePerLine?: boolean;
  readonly signal?: AbortSignal;
}

/** Lines in the form that a client gets. */
export interface LogBatch {
  /** stdcopy frames, or the bytes alone when the container had a terminal; at most about 256 KiB. May be empty. */
  readonly frames: Uint8Array;
  /** Where this batch ended: `read` with it goes on with the next line, in another process as well. */
  readonly position: string;
}

export interface LogReader {
  /**
   * Read lines in the order in which they were written. Ends after the last one, or with `follow` when the container's output has ended.
   * Nothing is thrown for a log that does not exist (yet).
   */
  read(options: LogReadOptions): AsyncIterable<LogBatch>;
}
