import { randomBytes } from 'node:crypto';
import { parseDetachKeys } from '@flotilla/docker-api';
import { conflict, internal, invalidArgument, isEngineError, messageOf, notFound } from '@flotilla/errors';
import type { container } from '@flotilla/proto';
import type { ContainerContext } from '../containers/context.js';
import { execCreated, execDied, execDetached, execStarted } from '../containers/events.js';
import { type AttachSession, type RuntimeExec, RuntimeFailure, type RuntimeTask } from '../runtime/runtime.js';
import { encodeSpec } from '../spec/index.js';
import { isLive } from '../containers/state.js';
import { type ContainerRecord, stateOf } from '../store/container-record.js';
import { execProcess } from './exec-process.js';
import type { ExecRecord, ExecStore } from './exec-store.js';

/** How long an ended exec can be inspected, and one that was never started can wait. */
const keepEndedMs = 10 * 60_000;
const keepCreatedMs = 60 * 60_000;
const sweepEveryMs = 60_000;
/** Records of one container; the oldest ended ones make room. */
const maxPerContainer = 2000;
/** Shown for a process whose end nobody saw. */
const unknownExitCode = 137;

export interface ExecStartOptions {
  readonly detach: boolean;
  readonly consoleSize: container.TerminalSize | undefined;
  /** The caller went away. */
  readonly signal: AbortSignal;
}

/** A started exec as its caller sees it. */
export interface StartedExec {
  readonly record: ExecRecord;
  /** None for a detached start, and when the process did not come up. */
  readonly session: AttachSession | undefined;
  /** Why an attached process did not come up: to be shown in its output. */
  readonly failure: string | undefined;
  /** Settles when the exit code is on record. */
  readonly ended: Promise<ExecRecord>;
}

interface Running {
  readonly exec: RuntimeExec;
  readonly ended: Promise<ExecRecord>;
}

/** Further processes in running containers (`docker exec`). They outlive this service with their containers. */
export class Execs implements AsyncDisposable {
  readonly #context: ContainerContext;
  readonly #store: ExecStore;
  readonly #running = new Map<string, Running>();
  /** Between a start and its record. */
  readonly #starting = new Set<string>();
  readonly #sweepTimer: NodeJS.Timeout;
  readonly #endRemovalWatch: () => void;
  #isClosed = false;

  constructor(context: ContainerContext, store: ExecStore) {
    this.#context = context;
    this.#store = store;
    this.#sweepTimer = setInterval(() => this.#inBackground('sweep', () => this.#sweep()), sweepEveryMs);
    this.#sweepTimer.unref();
    this.#endRemovalWatch = context.store.onChange((_revision, changes) => {
      for (const [id, record] of changes) {
        if (record === undefined) this.#inBackground('forget', () => this.#forget(id, () => true));
        else if (!isLive(stateOf(record)) && context.store.hasOpenExecs(id)) {
          // dockerd knows none of them any more; here the ended ones can still be inspected.
          this.#inBackground('forget', () => this.#forget(id, ({ state }) => state === 'created'));
        }
      }
    });
  }

  /** After a start of the service: processes that run are watched again, the end of others is written down. */
  async recover(): Promise<void> {
    for (const record of this.#store.all()) {
      if (this.#context.store.get(record.containerId) === undefined) await this.#store.remove([record.id]);
      else if (record.state === 'running') await this.#reattach(record);
    }
  }

  /** @throws EngineError `notFound`, `conflict` unless the container runs, `invalidArgument` for bad detach keys. */
  async create(name: string, config: container.ExecConfig): Promise<{ id: string; revision: bigint }> {
    const shown = this.#context.store.resolve(name);
    this.#requireTask(shown);
    if (config.cmd.length === 0) throw invalidArgument('No exec command specified');
    if (config.workingDir !== '' && !config.workingDir.startsWith('/')) {
      throw invalidArgument(`Cwd must be an absolute path: ${config.workingDir}`);
    }
    try {
      parseDetachKeys(config.detachKeys);
    } catch (cause) {
      throw invalidArgument(`Invalid escape keys (${config.detachKeys}) provided`, { cause });
    }
    const containerId = shown.container.id;
    await this.#makeRoom(containerId);
    const record: ExecRecord = {
      id: randomBytes(32).toString('hex'),
      containerId,
      config,
      state: 'created',
      exitCode: 0,
      changedAtMs: Date.now(),
    };
    const revision = await this.#store.put(record, execCreated(shown.container, record.id, config.cmd));
    return { id: record.id, revision };
  }

  /** @throws EngineError `notFound` `No such exec instance: x`. */
  get(id: string): { readonly record: ExecRecord; readonly pid: number } {
    const record = this.#store.get(id);
    if (record === undefined) throw notFound(`No such exec instance: ${id}`);
    return { record, pid: this.#running.get(id)?.exec.pid ?? 0 };
  }

  /**
   * Start a created exec. A program that cannot be run is an error of a detached start; an attached one tells it in its
   * output and ends with 126 or 127, as dockerd's does.
   *
   * @throws EngineError `notFound`; `conflict` when it was started before or the container does not run.
   */
  async start(id: string, options: ExecStartOptions): Promise<StartedExec> {
    const record = this.startable(id);
    this.#starting.add(id);
    try {
      return await this.#start(record, options);
    } finally {
      this.#starting.delete(id);
    }
  }

  /** The record of an exec that can be started now. @throws EngineError as {@link start} */
  startable(id: string): ExecRecord {
    const { record } = this.get(id);
    if (record.state === 'running' || this.#starting.has(id)) {
      throw conflict(`exec command ${id} is already running`);
    }
    if (record.state === 'ended') throw conflict(`exec command ${id} has already run`);
    this.#ownerOf(record.containerId);
    return record;
  }

  /** @throws EngineError `conflict` unless it runs. */
  async resize(id: string, height: number, width: number): Promise<void> {
    const { record } = this.get(id);
    const running = this.#running.get(id);
    if (running === undefined) throw conflict(`exec process ${record.id} is not running`);
    await running.exec.resize(width, height);
  }

  /** @throws EngineError `conflict` unless it runs. */
  async kill(id: string, signal: number): Promise<void> {
    const running = this.#running.get(id);
    if (running === undefined) throw conflict(`exec process ${id} is not running`);
    await running.exec.kill(signal);
  }

  /** Nobody will ask for it any more; one that runs is forgotten at its end. */
  async forget(id: string): Promise<void> {
    await this.#running.get(id)?.ended;
    await this.#store.remove([id]);
  }

  /** The caller typed the detach keys; the process runs on. */
  async noteDetached({ id, containerId }: ExecRecord): Promise<void> {
    const shown = this.#context.store.get(containerId)?.container;
    if (shown === undefined) return;
    await this.#context.store.commit((batch) => batch.emit(execDetached(shown, id)));
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.#isClosed = true;
    clearInterval(this.#sweepTimer);
    this.#endRemovalWatch();
    return Promise.resolve();
  }

  async #start(record: ExecRecord, options: ExecStartOptions): Promise<StartedExec> {
    const { id, config } = record;
    const { record: owner, task } = this.#ownerOf(record.containerId);
    const shown = owner.container;
    let exec: RuntimeExec;
    try {
      const process = await execProcess(this.#context, owner, config, options.consoleSize);
      exec = await task.exec({
        execId: id,
        processJson: encodeSpec(process),
        terminal: config.tty,
        stdin: config.attachStdin && !options.detach,
      });
    } catch (error) {
      return await this.#failed(record, error, options);
    }
    const session = options.detach
      ? undefined
      : exec.streams.attach({
          stdin: config.attachStdin,
          stdout: config.attachStdout,
          stderr: config.attachStderr,
          signal: options.signal,
          ...(config.tty ? { detachKeys: parseDetachKeys(config.detachKeys) } : {}),
        });
    try {
      await session?.registered;
      const running: ExecRecord = { ...record, state: 'running', changedAtMs: Date.now() };
      await this.#store.put(running, execStarted(shown, id, config.cmd));
      await exec.start();
      return { record: running, session, failure: undefined, ended: this.#watch(running, exec) };
    } catch (error) {
      session?.detach();
      // Made in the shim already, though its record may not have been written.
      this.#inBackground('delete', () => exec.delete());
      return await this.#failed(record, error, options);
    }
  }

  async #failed(record: ExecRecord, error: unknown, { detach }: ExecStartOptions): Promise<StartedExec> {
    const isTheirs = error instanceof RuntimeFailure && error.exitCode !== 125;
    const exitCode = isTheirs ? error.exitCode : 126;
    const ended: ExecRecord = { ...record, state: 'ended', exitCode, changedAtMs: Date.now() };
    await this.#store.put(ended);
    const message = messageOf(error);
    if (!detach) {
      return { record: ended, session: undefined, failure: message, ended: Promise.resolve(ended) };
    }
    if (isEngineError(error)) throw error;
    throw isTheirs ? invalidArgument(message, { cause: error }) : internal(message, { cause: error });
  }

  #watch(record: ExecRecord, exec: RuntimeExec): Promise<ExecRecord> {
    const ended = this.#end(record, exec);
    this.#running.set(record.id, { exec, ended });
    return ended;
  }

  async #end(record: ExecRecord, exec: RuntimeExec): Promise<ExecRecord> {
    const { exitCode } = await exec.exited;
    const ended: ExecRecord = { ...record, state: 'ended', exitCode, changedAtMs: Date.now() };
    const shown = this.#context.store.get(record.containerId)?.container;
    try {
      // A service that lets go learns the end at its next start.
      if (!this.#isClosed && this.#store.get(record.id) !== undefined) {
        await this.#store.put(ended, shown === undefined ? undefined : execDied(shown, record.id, exitCode));
      }
    } catch (error) {
      this.#context.log.warn({ execId: record.id, err: error }, 'end of an exec not written');
    } finally {
      this.#running.delete(record.id);
    }
    this.#inBackground('delete', () => exec.delete());
    return ended;
  }

  async #reattach(record: ExecRecord): Promise<void> {
    const { id, containerId, config } = record;
    const task = this.#context.tasks.get(containerId);
    const exec = await task?.reattachExec({ execId: id, terminal: config.tty });
    if (exec !== undefined) {
      void this.#watch(record, exec);
      return;
    }
    const shown = this.#context.store.get(containerId)?.container;
    const ended: ExecRecord = { ...record, state: 'ended', exitCode: unknownExitCode, changedAtMs: Date.now() };
    await this.#store.put(ended, shown === undefined ? undefined : execDied(shown, id, unknownExitCode));
  }

  #ownerOf(containerId: string): { record: ContainerRecord; task: RuntimeTask } {
    const record = this.#context.store.get(containerId);
    if (record === undefined) throw notFound(`No such container: ${containerId}`);
    return { record, task: this.#requireTask(record) };
  }

  #requireTask(record: ContainerRecord): RuntimeTask {
    const { id, name } = record.container;
    const state = stateOf(record);
    if (state === 'paused') throw conflict(`Container ${name} is paused, unpause the container before exec`);
    if (state === 'restarting') {
      throw conflict(`Container ${id} is restarting, wait until the container is running`);
    }
    const task = this.#context.tasks.get(id);
    if (task === undefined || state !== 'running') throw conflict(`container ${id} is not running`);
    return task;
  }

  async #makeRoom(containerId: string): Promise<void> {
    const own = this.#store.all().filter((record) => record.containerId === containerId);
    if (own.length < maxPerContainer) return;
    const [oldest] = own.filter(({ state }) => state === 'ended').sort((a, b) => a.changedAtMs - b.changedAtMs);
    if (oldest === undefined) throw conflict(`container ${containerId} has ${maxPerContainer} exec commands`);
    await this.#store.remove([oldest.id]);
  }

  async #sweep(): Promise<void> {
    const now = Date.now();
    const isOld = ({ state, changedAtMs }: ExecRecord): boolean =>
      (state === 'ended' && changedAtMs < now - keepEndedMs) ||
      (state === 'created' && changedAtMs < now - keepCreatedMs);
    await this.#store.remove(
      this.#store
        .all()
        .filter(isOld)
        .map(({ id }) => id),
    );
  }

  async #forget(containerId: string, isMeant: (record: ExecRecord) => boolean): Promise<void> {
    const own = this.#store.all().filter((record) => record.containerId === containerId && isMeant(record));
    await this.#store.remove(own.map(({ id }) => id));
  }

  #inBackground(what: string, work: () => Promise<void>): void {
    if (this.#isClosed) return;
    work().catch((error: unknown) => this.#context.log.warn({ err: error, step: what }, 'work on execs failed'));
  }
}
