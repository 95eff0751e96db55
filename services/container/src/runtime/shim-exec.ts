import { shim } from '@flotilla/proto';
import type { LogThread, OutputSink } from '../logs/log-thread.js';
import type { Run } from './attach-session.js';
import { Streams } from './container-streams.js';
import { exitCodeOfRuntimeError } from './runtime-errors.js';
import { type ContainerStreams, type ExecTask, type RuntimeExec, RuntimeFailure, type TaskExit } from './runtime.js';
import type { ShimClient } from './shim-client.js';
import { StdinWriter } from './stdin-writer.js';
import { TaskFifos } from './task-fifos.js';
import { TtrpcUnavailable } from './ttrpc-client.js';

const DRAIN_LIMIT_MS = 2000;

export interface ExecHost {
  readonly client: ShimClient;
  readonly bundle: string;
  readonly logThread: LogThread;
  /** The container's exit: an exec does not outlive it. */
  readonly containerExited: Promise<TaskExit>;
}

/** A further process in a container. */
export class ShimExec implements RuntimeExec {
  readonly execId: string;
  readonly streams: ContainerStreams;
  readonly exited: Promise<TaskExit>;
  readonly #streams: Streams;
  readonly #run: Run;
  readonly #client: ShimClient;
  readonly #fifos: TaskFifos;
  readonly #sink: OutputSink;
  readonly #stdin: StdinWriter | undefined;
  #pid: number | undefined;
  #deleting: Promise<void> | undefined;

  private constructor(host: ExecHost, input: Omit<ExecTask, 'processJson'>, fifos: TaskFifos, sink: OutputSink) {
    this.execId = input.execId;
    this.#client = host.client;
    this.#fifos = fifos;
    this.#sink = sink;
    this.#streams = new Streams({ terminal: input.terminal, openStdin: input.stdin, stdinOnce: true });
    this.streams = this.#streams;
    this.#stdin = input.stdin ? new StdinWriter(fifos.io.stdin, () => host.client.closeStdin(input.execId)) : undefined;
    this.#run = { sink, stdin: this.#stdin, readLog: () => noLog() };
    this.exited = this.#watch(host);
    this.#streams.begin(this.#run);
  }

  /** @throws RuntimeFailure; nothing is left then. */
  static async prepare(host: ExecHost, input: ExecTask): Promise<ShimExec> {
    const fifos = TaskFifos.make(host.bundle, `exec-${input.execId}-`, input.terminal, input.stdin);
    let sink: OutputSink | undefined;
    try {
      sink = await host.logThread.openSink({
        log: { driver: 'none', path: '' },
        resume: false,
        terminal: input.terminal,
        ...fifos.openOutput(),
      });
      await host.client.exec(input.execId, fifos.io, input.processJson);
      return new ShimExec(host, input, fifos, sink);
    } catch (error) {
      await sink?.close(true);
      fifos.remove();
      throw execFailure(error);
    }
  }

  /**
   * Watch a process again that an earlier life of the service started. Undefined when the shim does not know it, or it was
   * never started: nothing is left then.
   */
  static async reattach(
    host: ExecHost,
    { execId, terminal }: Pick<ExecTask, 'execId' | 'terminal'>,
  ): Promise<ShimExec | undefined> {
    const fifos = TaskFifos.existing(host.bundle, `exec-${execId}-`, terminal);
    let sink: OutputSink | undefined;
    try {
      const { pid, status } = await host.client.state(execId);
      if (status === shim.TaskStatus.CREATED) throw new Error('never started');
      sink = await host.logThread.openSink({
        log: { driver: 'none', path: '' },
        resume: true,
        terminal,
        ...fifos.openOutput(),
      });
      const exec = new ShimExec(host, { execId, terminal, stdin: fifos.io.stdin !== '' }, fifos, sink);
      exec.#pid = pid;
      sink.begin();
      return exec;
    } catch {
      await sink?.close(true);
      await host.client.delete(execId).catch(() => undefined);
      fifos.remove();
      return undefined;
    }
  }

  get pid(): number | undefined {
    return this.#pid;
  }

  async start(): Promise<number> {
    // Sessions have asked for their attachments: what the process writes first is theirs too.
    this.#sink.begin();
    try {
      this.#pid = await this.#client.start(this.execId);
      return this.#pid;
    } catch (error) {
      await this.#release();
      throw execFailure(error);
    }
  }

  async kill(signal: number): Promise<void> {
    await this.#client.kill(signal, false, this.execId);
  }

  async resize(width: number, height: number): Promise<void> {
    await this.#client.resizePty(width, height, this.execId);
  }

  delete(): Promise<void> {
    this.#deleting ??= this.#delete();
    return this.#deleting;
  }

  /** The service lets go: the process runs on without us. */
  detach(): void {
    this.#stdin?.destroy();
    this.#streams.detachAll();
  }

  async #delete(): Promise<void> {
    await Promise.race([this.#sink.ended, wait(DRAIN_LIMIT_MS)]);
    await this.#release();
  }

  async #release(): Promise<void> {
    // The process never started, has ended, or is gone with its container.
    await this.#client.delete(this.execId).catch(() => undefined);
    this.#stdin?.destroy();
    await this.#sink.close(true);
    this.#fifos.remove();
    this.#streams.end(this.#run);
  }

  async #watch(host: ExecHost): Promise<TaskExit> {
    let exit: TaskExit;
    try {
      const { exitCode, exitedAtNs } = await host.client.wait(this.execId);
      exit = { exitCode, exitedAtNs, exitedAt: new Date(Number(exitedAtNs / 1_000_000n)), oomKilled: false };
    } catch (error) {
      // With the connection closed only the container's end tells; otherwise the exec was deleted after a failed start.
      exit = { ...(error instanceof TtrpcUnavailable ? await host.containerExited : unknownExit()), exitCode: 137 };
    }
    this.#sink.finish();
    void this.#sink.ended.then(() => this.#streams.end(this.#run));
    return exit;
  }
}

function unknownExit(): TaskExit {
  const exitedAt = new Date();
  return { exitCode: 137, exitedAt, exitedAtNs: BigInt(exitedAt.getTime()) * 1_000_000n, oomKilled: false };
}

function execFailure(error: unknown): RuntimeFailure {
  const text = error instanceof Error ? error.message : String(error);
  return new RuntimeFailure(exitCodeOfRuntimeError(text), text, { cause: error });
}

async function* noLog(): AsyncGenerator<never> {
  // An exec has no log.
}

function wait(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms).unref());
}
