import type { LogReadRequest } from './files/log-file-reader.js';
import type { LogSinkConfig } from './log-config.js';

/** To the worker. `sink` and `read` are numbers that the sender chose. */
export type LogWorkerRequest =
  | {
      readonly type: 'open';
      readonly sink: number;
      readonly log: LogSinkConfig;
      /** The run began before a restart of this process. */
      readonly resume: boolean;
      readonly terminal: boolean;
      /** Read ends of FIFOs, not blocking; the worker closes them. */
      readonly stdoutFd: number;
      readonly stderrFd: number | undefined;
    }
  /** Begin to read; no output is read before. Requests are taken in order, so attachments that were asked for earlier miss nothing. */
  | { readonly type: 'begin'; readonly sink: number }
  /** Answered by `attached`; output that is read afterwards is sent. */
  | { readonly type: 'attach'; readonly sink: number; readonly attachment: number }
  | { readonly type: 'detach'; readonly sink: number }
  /** This much of what was sent is consumed. */
  | { readonly type: 'ack'; readonly sink: number; readonly bytes: number }
  /** The writing process ended: a FIFO that was opened after that has no end of its own. */
  | { readonly type: 'finish'; readonly sink: number }
  /** Stop reading. Answered by `closed`. With `ended` the run is over. */
  | { readonly type: 'close'; readonly sink: number; readonly ended: boolean }
  | { readonly type: 'read'; readonly read: number; readonly log: LogSinkConfig; readonly options: LogReadRequest }
  | { readonly type: 'ack-read'; readonly read: number }
  | { readonly type: 'cancel-read'; readonly read: number };

/** From the worker. */
export type LogWorkerReply =
  | { readonly type: 'opened'; readonly sink: number; readonly error: string | undefined }
  | {
      readonly type: 'attached';
      readonly sink: number;
      readonly attachment: number;
      /** Where the log ended when the attachment began. */
      readonly position: string;
      /** What was read before and is in no entry yet, as frames. */
      readonly partials: Uint8Array;
      /** Behind both, see `OutputPosition`; empty without a log. */
      readonly place: string;
    }
  /** Whole stdcopy frames, or raw bytes with a terminal, and the place behind them. */
  | { readonly type: 'output'; readonly sink: number; readonly bytes: Uint8Array; readonly place: string }
  /** The output is at its end, and all of it in the log. */
  | { readonly type: 'ended'; readonly sink: number }
  | { readonly type: 'closed'; readonly sink: number }
  /** Output could not be written to the log. */
  | { readonly type: 'log-failed'; readonly sink: number; readonly message: string }
  /** Entries of so many bytes were given up before they were sent. */
  | { readonly type: 'not-sent'; readonly path: string; readonly bytes: number }
  /** The receiver of a log cannot be reached; sending is tried again. */
  | { readonly type: 'not-reached'; readonly path: string; readonly reason: string }
  | { readonly type: 'batch'; readonly read: number; readonly frames: Uint8Array; readonly position: string }
  | { readonly type: 'read-ended'; readonly read: number; readonly error: string | undefined };

/** How many batches of a reading may be under way. */
export const READ_CREDITS = 4;
