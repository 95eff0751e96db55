import type { ErrorKind } from '@flotilla/errors';
import type { TreeChange } from '@flotilla/layer-tar';

/** What the layer worker is asked to do; one at a time. Descriptors in a task are closed by the worker. */
export type LayerTask =
  | {
      kind: 'unpack';
      /** Uncompressed tar: a file, or the decompressor's output. */
      sourceFd: number;
      /** For a blob that is still growing. */
      follow?: Follow;
      /** Empty directory to fill. */
      directory: string;
      /** Becomes non-zero when the task is to stop. */
      stop: Int32Array;
    }
  | {
      /** Unpack, hash and hand on to a compressor, in one pass. */
      kind: 'ingest';
      /** Uncompressed tar. */
      sourceFd: number;
      /** Only so much of what arrives at `sourceFd`. */
      part?: ArrivingTaskPart;
      /** Empty directory to fill. */
      directory: string;
      /** Standard input of the compressor. */
      compressorFd: number;
      stop: Int32Array;
    }
  | {
      /** Write everything to a file and hash it. */
      kind: 'spool';
      sourceFd: number;
      targetFd: number;
      stop: Int32Array;
    }
  | {
      kind: 'pack';
      tree: LayerTree;
      /** What to write: the changes of `upper` as a layer, or the whole of what is shown. */
      as: 'layer' | 'root file system';
      /** Gets the uncompressed tar. */
      outputFd: number;
      stop: Int32Array;
    }
  | { kind: 'changes'; tree: LayerTree; stop: Int32Array }
  | {
      /** Copy what `lower` shows (topmost first) into an empty directory, and see it safely on disk. */
      kind: 'copy';
      lower: readonly string[];
      directory: string;
      stop: Int32Array;
    }
  | {
      /** Sum of the sizes of the files that a whole copy has changed, in `fileBytes`. */
      kind: 'measureChanges';
      tree: LayerTree;
      stop: Int32Array;
    }
  | {
      kind: 'digest';
      path: string;
      /** Default: sha256. */
      algorithm?: string;
      stop: Int32Array;
    }
  | {
      /** Sum of the sizes of the files below a directory, in `fileBytes`. */
      kind: 'measure';
      path: string;
      stop: Int32Array;
    }
  | { kind: 'sync'; path: string };

/** Bytes that arrive. */
export interface ArrivingTaskPart {
  /** Those that have arrived. */
  head: Uint8Array;
  /** Of all, with the head; Infinity: until the end. */
  length: number;
  /** Closed on its other side when `stop` has changed. */
  wakeFd: number;
}

/** A container's root file system as it lies on the disk. */
export interface LayerTree {
  upper: string;
  /** Topmost first. */
  lower: readonly string[];
  /** `upper` is everything that is shown, once copied from `lower`. */
  isCopy: boolean;
}

/** How to read a blob while it is being downloaded. */
export interface Follow {
  /** The compressed blob; -1 when it is plain, and `sourceFd` the blob itself. */
  blobFd: number;
  /** Standard input of the decompressor; -1 without. */
  codecFd: number;
  /** A byte comes whenever `state` or `stop` has changed. Does not block. */
  wakeFd: number;
  /** Shared: the bytes of the blob that may be read, and non-zero when those are all. */
  state: BigInt64Array;
}

export interface LayerTaskResult {
  /** sha256 of what was read, `sha256:<hex>`; empty when nothing is. */
  digest: string;
  /** Bytes read. */
  readBytes: number;
  /** Sum of the sizes of the files that were unpacked or found. */
  fileBytes: number;
  /** For `changes` only. */
  changes?: TreeChange[];
}

export type LayerReply = { result: LayerTaskResult } | { error: { kind: ErrorKind; message: string } };
