import type { IdPair } from '@flotilla/sys';
import type { LogReader, LogSinkConfig } from '../logs/log-config.js';

/** How a container's process failed to come up. `exitCode` is what the docker CLI ends with. */
export class RuntimeFailure extends Error {
  /** 127: no such program; 126: it may not be run; 125: anything else. */
  readonly exitCode: 125 | 126 | 127;

  constructor(exitCode: 125 | 126 | 127, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'RuntimeFailure';
    this.exitCode = exitCode;
  }
}

export interface StreamOptions {
  readonly terminal: boolean;
  readonly openStdin: boolean;
  /** Standard input ends when the first attached client's does. */
  readonly stdinOnce: boolean;
}

export interface CreateTask {
  readonly id: string;
  /** Directory with config.json and the mounted rootfs. FIFOs and the runtime's files are put there too. */
  readonly bundle: string;
  readonly terminal: boolean;
  readonly openStdin: boolean;
  readonly stdinOnce?: boolean;
  /** The OCI runtime: a name in PATH or a path. */
  readonly runtimeBinary: string;
  /** Cgroup (v1: below each controller's root) for the shim itself. */
  readonly shimCgroup?: string;
  readonly systemdCgroup?: boolean;
  /** Directory of a checkpoint that the task goes on from. */
  readonly checkpoint?: string;
  /** The container's root when that is not the host's: its streams are this user's, so that it may open /dev/stdout. */
  readonly ioOwner?: IdPair;
  readonly log: LogSinkConfig;
}

export interface ReattachTask {
  readonly id: string;
  readonly bundle: string;
  readonly shimAddress: string;
  readonly terminal: boolean;
  readonly openStdin?: boolean;
  readonly stdinOnce?: boolean;
  readonly log: LogSinkConfig;
}

/** Nothing is left of the task; what it had on the machine is cleaned up. `exitCode` is absent when nobody knows it (137 is shown then). */
export interface TaskGone {
  readonly gone: true;
  readonly exitCode?: number;
}

export interface TaskExit {
  /** 128 + n for a process that died of signal n. */
  readonly exitCode: number;
  readonly exitedAt: Date;
  /** The same, in nanoseconds since the epoch. */
  readonly exitedAtNs: bigint;
  readonly oomKilled: boolean;
}

/** The place where processes run: a shim for each container. */
export interface Runtime {
  /**
   * Begin what `create` needs first (FIFOs and the shim), so that it happens beside the preparation of mounts and network. Needs the bundle's directory
   * only. Never throws: `create` tells. When `create` does not follow, `abandon` must.
   */
  prepare(input: Pick<CreateTask, 'id' | 'bundle' | 'terminal' | 'openStdin'>): void;
  /** Take back `prepare`. Does nothing without it. */
  abandon(id: string): Promise<void>;
  /**
   * Make the FIFOs, start the shim, create the container's first process (stopped before its program).
   * On failure nothing is left but the bundle as it was.
   * @throws RuntimeFailure
   */
  create(input: CreateTask): Promise<RuntimeTask>;
  /** After a restart of the service. A container that ended meanwhile comes back as a task whose `exited` settles at once. */
  reattach(input: ReattachTask): Promise<RuntimeTask | TaskGone>;
  /** Remove whatever is left of a dead one: processes, shim, cgroup, FIFOs. Idempotent. */
  cleanup(id: string, bundle: string, runtimeBinary?: string): Promise<void>;
  /**
   * The streams of a container, made on first use. They may be attached to before `create` and between two runs: such a session waits
   * for the next run. `forgetStreams` ends those that wait.
   */
  streams(id: string, options: StreamOptions): ContainerStreams;
  /** The container is removed or its start failed: end the sessions that wait for a run. */
  forgetStreams(id: string): void;
  /** Reads a log, also of a container that does not run. Follows when it runs in this process. */
  openLogReader(config: LogSinkConfig): LogReader;
  /** `listener` is called when the kernel killed a process of a container for want of memory. */
  onOom(listener: (id: string) => void): () => void;
  /** Let go of everything; containers run on and their output waits in the FIFOs. */
  close(): Promise<void>;
}

export interface RuntimeTask {
  readonly id: string;
  /** The first process, in the host's pid namespace. */
  readonly pid: number;
  /** When this object was made; `created`: `start` was not called yet. */
  readonly stateAtFirst: 'created' | 'running' | 'paused' | 'stopped';
  /** To be kept for `reattach`. */
  readonly shimAddress: string;
  readonly streams: ContainerStreams;
  /** Settles when the first process ended, or the shim died (137 after everything is killed). Never rejects. */
  readonly exited: Promise<TaskExit>;
  /** @throws RuntimeFailure; the caller then calls `delete`. */
  start(): Promise<void>;
  /** @throws EngineError `notFound` when the process has ended. */
  kill(signal: number, all?: boolean): Promise<void>;
  resize(width: number, height: number): Promise<void>;
  pause(): Promise<void>;
  /** Write its processes down in a directory, and end them if `exit`. Not tried on a machine where criu works. */
  checkpoint(directory: string, exit: boolean): Promise<void>;
  resume(): Promise<void>;
  /** Processes in the container, in the host's pid namespace. */
  pids(): Promise<number[]>;
  /** Change limits: the runtime spec's LinuxResources. */
  update(resourcesJson: string): Promise<void>;
  /** Run a further process. */
  exec(input: ExecTask): Promise<RuntimeExec>;
  /** A further process that was started before a restart of the service; undefined when nothing is known of it any more. */
  reattachExec(input: Pick<ExecTask, 'execId' | 'terminal'>): Promise<RuntimeExec | undefined>;
  /** Settles when all output is in the log and with the sessions, at most 2 s after the exit: something outside may hold the pipe. */
  drained(): Promise<void>;
  /** After the exit: wait for the output, then take the task and the shim away. Idempotent. */
  delete(): Promise<void>;
}

export interface ExecTask {
  readonly execId: string;
  /** The runtime spec's Process. */
  readonly processJson: string;
  readonly terminal: boolean;
  readonly stdin: boolean;
}

/** A further process. Its output goes to its sessions only; with none attached it is thrown away. */
export interface RuntimeExec {
  readonly execId: string;
  readonly pid: number | undefined;
  readonly streams: ContainerStreams;
  readonly exited: Promise<TaskExit>;
  /** @throws RuntimeFailure; everything of it is gone then. */
  start(): Promise<number>;
  kill(signal: number): Promise<void>;
  resize(width: number, height: number): Promise<void>;
  /** After the exit: wait for the output and delete. Idempotent. */
  delete(): Promise<void>;
}

export interface AttachOptions {
  readonly stdin: boolean;
  readonly stdout: boolean;
  readonly stderr: boolean;
  /** Begin with what is in the log. */
  readonly logs?: boolean;
  /** Begin with what the log has behind this `OutputPosition`, in place of `logs`. */
  readonly resumeAt?: string;
  /** False: only what is in the log, which needs a run (without one read it with `openLogReader`). Absent: true. */
  readonly stream?: boolean;
  /** Bytes that detach when they are typed one after the other; terminal only. */
  readonly detachKeys?: Uint8Array;
  /** The client went away. */
  readonly signal?: AbortSignal;
}

export interface ContainerStreams {
  /** Takes effect at once: nothing written after the call is missed. */
  attach(options: AttachOptions): AttachSession;
}

export interface AttachSession {
  /**
   * stdcopy frames, or raw bytes with a terminal, 64-256 KiB under load. A reader that stops reading stops the container's output after about 1 MiB,
   * until it goes on or its signal fires. Ends when the container ended and everything was delivered, or the session was detached.
   */
  readonly output: AsyncIterable<Uint8Array>;
  readonly stdin: {
    /**
     * Settles when the next chunk may come. Does nothing when the container has no standard input or it is closed.
     * @param taken called when nothing can take the chunk from the container any more
     */
    write(chunk: Uint8Array, taken?: () => void): Promise<void>;
    /** The client's input ended: with `stdinOnce` and no terminal the container's ends too. Output goes on. */
    end(): void;
  };
  /** Settles when the attachment has begun: from then on no output is missed. Waits for the run when there is none yet. */
  readonly ready: Promise<void>;
  /** Settles when nothing is missed of what a process writes from now on: as `ready` with a run, at once without one. */
  readonly registered: Promise<void>;
  /** The `OutputPosition` behind what `output` gave last; empty before there is a run, and without a log. */
  readonly position: string;
  /** Whether there is, or was, a run. */
  readonly hasRun: boolean;
  /** How the output ended; before the last of it was read. */
  readonly ended: Promise<'exited' | 'detached'>;
  detach(): void;
}
