import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { setImmediate as immediate } from 'node:timers/promises';
import type { Logger } from '@flotilla/log';
import { shim } from '@flotilla/proto';
import type { LogReader, LogSinkConfig } from '../logs/log-config.js';
import { LogThread, type OutputSink } from '../logs/log-thread.js';
import { Streams } from './container-streams.js';
import { OomCounter } from './oom-counter.js';
import { PreparedShim } from './prepared-shim.js';
import { runtimeFailure } from './runtime-errors.js';
import {
  type ContainerStreams,
  type CreateTask,
  type ReattachTask,
  type Runtime,
  RuntimeFailure,
  type RuntimeTask,
  type StreamOptions,
  type TaskGone,
} from './runtime.js';
import { ShimCgroups } from './shim-cgroups.js';
import { ShimClient, type TaskState } from './shim-client.js';
import { serveShimEvents } from './shim-events.js';
import {
  type ShimProgram,
  deleteDeadShim,
  removeSocketAt,
  runtimeRoot,
  shimLogTail,
  shimSocketDirectory,
  takesListeningSocket,
} from './shim-process.js';
import { ShimTask } from './shim-task.js';
import { StdinWriter } from './stdin-writer.js';
import { TaskFifos } from './task-fifos.js';
import { TtrpcError, TtrpcUnavailable } from './ttrpc-client.js';
import type { TtrpcServer } from './ttrpc-server.js';

export interface ShimRuntimeOptions {
  /** The engine's own; short enough for a socket in it. */
  readonly execRoot: string;
  /** Absent: /usr/bin/containerd-shim-runc-v2. */
  readonly shimPath?: string;
  readonly log: Logger;
  /** The process is of no use any more and should be started again; containers are not touched. */
  readonly onFatal: (error: Error) => void;
}

const DEFAULT_SHIM = '/usr/bin/containerd-shim-runc-v2';

/** Drives one containerd-shim-runc-v2 for each container over ttrpc, without containerd. */
export class ShimRuntime implements Runtime {
  readonly #program: ShimProgram;
  readonly #log: Logger;
  readonly #logThread: LogThread;
  readonly #streams = new Map<string, Streams>();
  readonly #tasks = new Map<string, ShimTask>();
  readonly #prepared = new Map<string, { shim: Promise<PreparedShim>; bundle: string }>();
  readonly #shimCgroups: ShimCgroups;
  readonly #oomListeners = new Set<(id: string) => void>();
  #events: TtrpcServer | undefined;
  #takesSocket: Promise<boolean> | undefined;

  private constructor(options: ShimRuntimeOptions) {
    const { execRoot, shimPath = DEFAULT_SHIM, log, onFatal } = options;
    this.#program = { path: shimPath, execRoot, eventsPath: join(execRoot, 'shim-events.sock') };
    this.#log = log;
    this.#logThread = new LogThread(log, onFatal);
    this.#shimCgroups = new ShimCgroups((error) =>
      log.warn({ err: error }, 'shim stays in the cgroup of this service'),
    );
  }

  static async open(options: ShimRuntimeOptions): Promise<ShimRuntime> {
    const runtime = new ShimRuntime(options);
    mkdirSync(shimSocketDirectory(options.execRoot), { recursive: true, mode: 0o700 });
    runtime.#events = await serveShimEvents(runtime.#program.eventsPath, (id) => {
      runtime.#tasks.get(id)?.markOom();
      for (const listener of runtime.#oomListeners) listener(id);
    });
    return runtime;
  }

  prepare(input: Pick<CreateTask, 'id' | 'bundle' | 'terminal' | 'openStdin'>): void {
    if (this.#prepared.has(input.id)) return;
    // Starting it holds this thread for a moment: what the caller asks others for next is on its way by then.
    const shim = immediate().then(() => this.#makeShim(input));
    // `create` or `abandon` takes it.
    shim.catch(() => undefined);
    this.#prepared.set(input.id, { shim, bundle: input.bundle });
  }

  async abandon(id: string): Promise<void> {
    const prepared = this.#prepared.get(id);
    if (prepared === undefined) return;
    this.#prepared.delete(id);
    const shim = await prepared.shim.catch(() => undefined);
    await shim?.dispose(() => this.#removeLeftovers(id, prepared.bundle));
  }

  async create(input: CreateTask): Promise<RuntimeTask> {
    const { id, bundle, terminal } = input;
    const streams = this.#streamsOf(input);
    using _quiet = this.#shimCgroups.pause();
    let prepared: PreparedShim | undefined;
    let sink: OutputSink | undefined;
    let stdin: StdinWriter | undefined;
    try {
      const preparing = this.#prepared.get(id)?.shim ?? this.#makeShim(input);
      this.#prepared.delete(id);
      prepared = await preparing;
      const { client, fifos, started } = prepared;
      sink = await this.#logThread.openSink({ log: input.log, resume: false, terminal, ...prepared.takeOutput() });
      if (input.openStdin) stdin = new StdinWriter(fifos.io.stdin, () => client.closeStdin());
      const options = {
        binaryName: input.runtimeBinary,
        root: runtimeRoot(this.#program),
        systemdCgroup: input.systemdCgroup ?? false,
        ...(input.ioOwner === undefined ? {} : { ioUid: input.ioOwner.uid, ioGid: input.ioOwner.gid }),
      };
      const pid = await client.create(bundle, fifos.io, options, input.checkpoint);
      if (input.shimCgroup !== undefined) {
        this.#shimCgroups.move(started.pid ?? (await client.shimPid()), input.shimCgroup);
      }
      const parts = { pid, shimAddress: started.address, stateAtFirst: 'created' as const };
      return this.#task(input, { ...parts, client, fifos, sink, stdin, streams });
    } catch (error) {
      const shimLog = shimLogTail(bundle);
      stdin?.destroy();
      await sink?.close(true);
      await prepared?.dispose(() => this.#removeLeftovers(id, bundle));
      streams.endAll();
      if (error instanceof TtrpcUnavailable) {
        throw new RuntimeFailure(125, `shim of container failed: ${error.message}: ${shimLog}`, { cause: error });
      }
      throw runtimeFailure(error);
    }
  }

  async reattach(input: ReattachTask): Promise<RuntimeTask | TaskGone> {
    const { id, bundle, shimAddress } = input;
    let client: ShimClient | undefined;
    let state: TaskState;
    try {
      client = await ShimClient.connect(shimAddress, id);
      state = await client.state();
    } catch (error) {
      if (error instanceof TtrpcError) await client?.shutdown().catch(() => undefined);
      client?.close();
      await this.cleanup(id, bundle);
      removeSocketAt(shimAddress);
      return { gone: true };
    }
    const fifos = TaskFifos.existing(bundle, '', input.terminal);
    const connected = client;
    try {
      const sink = await this.#logThread.openSink({
        log: input.log,
        resume: true,
        terminal: input.terminal,
        ...fifos.openOutput(),
      });
      const stdin = fifos.io.stdin === '' ? undefined : new StdinWriter(fifos.io.stdin, () => connected.closeStdin());
      return this.#task(input, {
        pid: state.pid,
        shimAddress,
        stateAtFirst: stateName(state.status),
        client,
        fifos,
        sink,
        stdin,
        streams: this.#streamsOf({ ...input, openStdin: fifos.io.stdin !== '' }),
      });
    } catch (error) {
      client.close();
      // Who ends it now may not find the socket by its bundle.
      removeSocketAt(shimAddress);
      throw error;
    }
  }

  async cleanup(id: string, bundle: string, runtimeBinary?: string): Promise<void> {
    await this.#removeLeftovers(id, bundle, runtimeBinary);
    for (const terminal of [true, false]) TaskFifos.existing(bundle, '', terminal).remove();
  }

  streams(id: string, options: StreamOptions): ContainerStreams {
    return this.#streamsOf({ id, ...options });
  }

  forgetStreams(id: string): void {
    this.#streams.get(id)?.detachAll();
    this.#streams.delete(id);
  }

  /** Bytes of log entries that were given up before they were sent to another machine. */
  get lostLogBytes(): number {
    return this.#logThread.lostBytes;
  }

  openLogReader(config: LogSinkConfig): LogReader {
    return this.#logThread.openReader(config);
  }

  onOom(listener: (id: string) => void): () => void {
    this.#oomListeners.add(listener);
    return () => this.#oomListeners.delete(listener);
  }

  async close(): Promise<void> {
    await Promise.all([...this.#prepared.keys()].map((id) => this.abandon(id)));
    await Promise.all([...this.#tasks.values()].map((task) => task.release()));
    for (const streams of this.#streams.values()) streams.detachAll();
    await this.#logThread.close();
    await this.#events?.close();
  }

  #task(
    input: CreateTask | ReattachTask,
    parts: {
      pid: number;
      shimAddress: string;
      stateAtFirst: RuntimeTask['stateAtFirst'];
      client: ShimClient;
      fifos: TaskFifos;
      sink: OutputSink;
      stdin: StdinWriter | undefined;
      streams: Streams;
    },
  ): ShimTask {
    const { id, bundle, terminal, log } = input;
    const task = new ShimTask({
      ...parts,
      id,
      bundle,
      terminal,
      log,
      oom: new OomCounter(parts.pid),
      logThread: this.#logThread,
      cleanup: () => this.#removeLeftovers(id, bundle),
      forget: () => {
        if (this.#tasks.get(id) === task) this.#tasks.delete(id);
      },
    });
    this.#tasks.set(id, task);
    return task;
  }

  #streamsOf(options: { id: string; terminal: boolean; openStdin?: boolean; stdinOnce?: boolean }): Streams {
    const { id, terminal, openStdin = false, stdinOnce = false } = options;
    let streams = this.#streams.get(id);
    if (streams === undefined) this.#streams.set(id, (streams = new Streams({ terminal, openStdin, stdinOnce })));
    return streams;
  }

  async #removeLeftovers(id: string, bundle: string, runtimeBinary?: string): Promise<void> {
    try {
      await deleteDeadShim(this.#program, id, bundle, runtimeBinary);
    } catch (error) {
      // Nothing of it may have existed.
      this.#log.debug({ err: error, containerId: id }, 'removing the leftovers of a container failed');
    }
  }

  async #makeShim(input: Pick<CreateTask, 'id' | 'bundle' | 'terminal' | 'openStdin'>): Promise<PreparedShim> {
    this.#takesSocket ??= takesListeningSocket(this.#program).catch(() => false);
    return PreparedShim.make(this.#program, await this.#takesSocket, input);
  }
}

function stateName(status: shim.TaskStatus): RuntimeTask['stateAtFirst'] {
  switch (status) {
    case shim.TaskStatus.CREATED:
      return 'created';
    case shim.TaskStatus.STOPPED:
      return 'stopped';
    case shim.TaskStatus.PAUSED:
    case shim.TaskStatus.PAUSING:
      return 'paused';
    default:
      return 'running';
  }
}
