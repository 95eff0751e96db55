import { conflict, notFound } from '@flotilla/errors';
import type { LogSinkConfig } from '../logs/log-config.js';
import type { LogThread, OutputSink } from '../logs/log-thread.js';
import type { Run } from './attach-session.js';
import type { Streams } from './container-streams.js';
import type { OomCounter } from './oom-counter.js';
import { runtimeFailure } from './runtime-errors.js';
import type { ContainerStreams, ExecTask, RuntimeExec, RuntimeTask, TaskExit } from './runtime.js';
import type { ShimClient } from './shim-client.js';
import { ShimExec } from './shim-exec.js';
import type { StdinWriter } from './stdin-writer.js';
import type { TaskFifos } from './task-fifos.js';
import { TtrpcCode, TtrpcError } from './ttrpc-client.js';

const DRAIN_LIMIT_MS = 2000;
const KILLED = 137;

/** The parts of a task that its runtime made. */
export interface ShimTaskParts {
  readonly id: string;
  readonly pid: number;
  readonly bundle: string;
  readonly shimAddress: string;
  readonly stateAtFirst: RuntimeTask['stateAtFirst'];
  readonly terminal: boolean;
  readonly log: LogSinkConfig;
  readonly client: ShimClient;
  readonly fifos: TaskFifos;
  readonly sink: OutputSink;
  readonly stdin: StdinWriter | undefined;
  readonly streams: Streams;
  readonly oom: OomCounter;
  readonly logThread: LogThread;
  /** Kill and remove what a dead shim left. */
  readonly cleanup: () => Promise<void>;
  /** The task is gone. */
  readonly forget: () => void;
}

/** A container's run in its shim. */
export class ShimTask implements RuntimeTask {
  readonly id: string;
  readonly pid: number;
  readonly shimAddress: string;
  readonly stateAtFirst: RuntimeTask['stateAtFirst'];
  readonly streams: ContainerStreams;
  readonly exited: Promise<TaskExit>;
  readonly #parts: ShimTaskParts;
  readonly #run: Run;
  readonly #execs = new Set<ShimExec>();
  #isReleased = false;
  #shimIsDead = false;
  #deleting: Promise<void> | undefined;
  /** Settles when the exit is known and all output was handed on. */
  readonly #drained: Promise<void>;

  constructor(parts: ShimTaskParts) {
    this.id = parts.id;
    this.pid = parts.pid;
    this.shimAddress = parts.shimAddress;
    this.stateAtFirst = parts.stateAtFirst;
    this.streams = parts.streams;
    this.#parts = parts;
    this.exited = this.#watch();
    this.#drained = this.exited.then(() => this.#drain());
    this.#run = {
      sink: parts.sink,
      stdin: parts.stdin,
      readLog: (wanted, until, after) =>
        parts.logThread.readUntil(
          parts.log,
          {
            ...{ ...wanted, terminal: parts.terminal, timestamps: false, details: false, follow: false },
            ...(after === undefined ? {} : { position: after }),
          },
          until,
        ),
    };
    parts.streams.begin(this.#run);
    if (parts.stateAtFirst !== 'created') parts.sink.begin();
  }

  async start(): Promise<void> {
    // Sessions that came before the start have asked for their attachments: what the process writes first is theirs too.
    this.#parts.sink.begin();
    try {
      await this.#parts.client.start();
    } catch (error) {
      throw runtimeFailure(error);
    }
  }

  async kill(signal: number, all = false): Promise<void> {
    try {
      await this.#parts.client.kill(signal, all);
    } catch (error) {
      if (isGone(error)) throw notFound(`container ${this.id} is not running`, { cause: error });
      throw error;
    }
  }

  async resize(width: number, height: number): Promise<void> {
    await this.#parts.client.resizePty(width, height);
  }

  async checkpoint(directory: string, exit: boolean): Promise<void> {
    try {
      await this.#parts.client.checkpoint(directory, exit);
    } catch (error) {
      throw runtimeFailure(error);
    }
  }

  async pause(): Promise<void> {
    await this.#parts.client.pause();
  }

  async resume(): Promise<void> {
    await this.#parts.client.resume();
  }

  async pids(): Promise<number[]> {
    return this.#parts.client.pids();
  }

  async update(resourcesJson: string): Promise<void> {
    try {
      await this.#parts.client.update(resourcesJson);
    } catch (error) {
      if (isGone(error)) throw notFound(`container ${this.id} is not running`, { cause: error });
      throw conflict(error instanceof Error ? error.message : String(error), { cause: error });
    }
  }

  async exec(input: ExecTask): Promise<RuntimeExec> {
    const { client, bundle, logThread } = this.#parts;
    const exec = await ShimExec.prepare({ client, bundle, logThread, containerExited: this.exited }, input);
    this.#execs.add(exec);
    void exec.exited.then(() => this.#execs.delete(exec));
    return exec;
  }

  async reattachExec(input: Pick<ExecTask, 'execId' | 'terminal'>): Promise<RuntimeExec | undefined> {
    const { client, bundle, logThread } = this.#parts;
    const exec = await ShimExec.reattach({ client, bundle, logThread, containerExited: this.exited }, input);
    if (exec === undefined) return undefined;
    this.#execs.add(exec);
    void exec.exited.then(() => this.#execs.delete(exec));
    return exec;
  }

  drained(): Promise<void> {
    return this.#drained;
  }

  delete(): Promise<void> {
    this.#deleting ??= this.#delete();
    return this.#deleting;
  }

  /** An OOM event came for this container. */
  markOom(): void {
    this.#parts.oom.mark();
  }

  /** This process lets go: the container runs on, `exited` never settles if it has not. */
  async release(): Promise<void> {
    this.#isReleased = true;
    const { client, sink, stdin, streams } = this.#parts;
    streams.detachAll();
    for (const exec of this.#execs) exec.detach();
    stdin?.destroy();
    await sink.close(false);
    client.close();
  }

  async #delete(): Promise<void> {
    const { client, fifos, oom, sink, stdin, streams, cleanup, forget } = this.#parts;
    if (await this.#hasExited()) await this.drained();
    else await this.#killNow();
    stdin?.destroy();
    if (!this.#shimIsDead) {
      try {
        await client.delete();
        // The shim ends by itself; nobody needs to wait for it.
        client.shutdown().catch(() => undefined);
      } catch {
        client.close();
        await cleanup();
      }
    }
    await sink.close(true);
    streams.end(this.#run);
    oom.close();
    fifos.remove();
    forget();
  }

  /** Hand on what is left of the output, then end the run for all: whoever attaches after this waits for the next one. */
  async #drain(): Promise<void> {
    const { sink, streams } = this.#parts;
    let timer: NodeJS.Timeout | undefined;
    const limit = new Promise<void>((resolve) => (timer = setTimeout(resolve, DRAIN_LIMIT_MS)));
    await Promise.race([sink.ended, limit]);
    clearTimeout(timer);
    // Followers of the log leave now, and attached clients.
    await sink.close(true);
    streams.end(this.#run);
  }

  /** Whether the exit is known by now: a task that never started has none. */
  async #hasExited(): Promise<boolean> {
    return Promise.race([this.exited.then(() => true), new Promise<false>((resolve) => setImmediate(resolve, false))]);
  }

  /** Started or not, it is not wanted any more. */
  async #killNow(): Promise<void> {
    try {
      await this.#parts.client.kill(9, true);
      await Promise.race([this.exited, new Promise((resolve) => setTimeout(resolve, DRAIN_LIMIT_MS))]);
    } catch {
      // It was never started, or has just ended: `delete` tells.
    }
    this.#parts.sink.finish();
  }

  async #watch(): Promise<TaskExit> {
    const { client, oom, sink, cleanup } = this.#parts;
    let exitCode: number;
    let exitedAtNs: bigint;
    try {
      ({ exitCode, exitedAtNs } = await client.wait());
    } catch {
      // Let go of on purpose: nobody waits any more.
      if (this.#isReleased) return new Promise(() => undefined);
      this.#shimIsDead = true;
      client.close();
      await cleanup().catch(() => undefined);
      exitCode = KILLED;
      exitedAtNs = BigInt(Date.now()) * 1_000_000n;
    }
    const { isOomKilled } = oom;
    sink.finish();
    return { exitCode, exitedAtNs, exitedAt: new Date(Number(exitedAtNs / 1_000_000n)), oomKilled: isOomKilled };
  }
}

function isGone(error: unknown): boolean {
  return (
    error instanceof TtrpcError &&
    (error.code === TtrpcCode.notFound || error.message.includes('process already finished'))
  );
}
