import type { ErrorKind } from '@flotilla/errors';
import type { TreeChange } from '@flotilla/layer-tar';

/** What the layer worker is asked to do; one at a time. Descriptors in a task are closed by the worker. */
export type LayerTask =
  | {
      kind: 'unpack';
      /** Uncompressed tar. */
      sourceFd: number;
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

/** A container's root file system as it lies on the disk. */
export interface LayerTree {
  upper: string;
  /** Topmost first. */
  lower: readonly string[];
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
