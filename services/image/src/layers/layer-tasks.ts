import type { ErrorKind } from '@flotilla/errors';

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
      kind: 'compress';
      /** Uncompressed tar. */
      sourceFd: number;
      /** Standard input of the compressor. */
      compressorFd: number;
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

export interface LayerTaskResult {
  /** sha256 of what was read, `sha256:<hex>`; empty when nothing is. */
  digest: string;
  /** Bytes read. */
  readBytes: number;
  /** Sum of the sizes of the files that were unpacked or found. */
  fileBytes: number;
}

export type LayerReply = { result: LayerTaskResult } | { error: { kind: ErrorKind; message: string } };
