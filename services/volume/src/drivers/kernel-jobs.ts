import type { LocalMount } from './local-options.js';

/** Calls that a file server which does not answer can keep for ever, or that take as long as there are files. */
export type KernelJob =
  | { kind: 'mount'; target: string; mount: LocalMount }
  | { kind: 'unmount'; target: string }
  /** Whether a directory is empty, or has an entry of that name. */
  | { kind: 'isFresh'; target: string; staging: string }
  /** Give what is below a directory to the project of a number. */
  | { kind: 'adopt'; target: string; project: number }
  /** Bytes of the files below a directory. */
  | { kind: 'measure'; target: string };

export interface KernelJobMessage {
  job: KernelJob;
  /** One number, which grows while there is progress. */
  progress: Int32Array<SharedArrayBuffer>;
}

/** What a job brings; nothing for most. */
export type KernelResult = boolean | bigint | undefined;

export type KernelReply = { result: KernelResult } | { errno: number } | { failure: string };
