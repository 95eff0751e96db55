import { conflict, messageOf, notFound, unavailable } from '@flotilla/errors';
import { container } from '@flotilla/proto';
import pLimit, { type LimitFunction } from 'p-limit';
import type { RuntimeTask } from '../runtime/runtime.js';
import { type ContainerRecord, stateOf, toStatus } from '../store/container-record.js';
import { type ContainerContext, timestampNow } from './context.js';
import { containerRestarted, containerStarted } from './events.js';
import { logSinkOf } from './log-sink.js';
import { type PreparedRun, prepareRun } from './prepare-run.js';
import { healthAtStart } from '../health/health-check.js';
import { releaseRun } from './release.js';
import { rootfsDir } from './settings.js';
import { describeStartFailure, type StartFailure } from './start-failure.js';
import { isLive, transition } from './state.js';

/** Who starts a container, and what is answered in the batch of the new state. */
export type StartCause =
  /** `checkpoint`: directory of what is brought back. */
  | { kind: 'user'; requestId: string; checkpoint?: string }
  /** The second half of a restart; `requestId` may be empty when nobody waits. */
  | { kind: 'restart'; requestId: string }
  | { kind: 'policy' }
  | { kind: 'engine' };

export interface StartResult {
  outcome: container.StartOutcome;
  revision: bigint;
}

export interface StarterHooks {
  /** A task runs: watch for its end. Called while the container's lock is held. */
  watch(task: RuntimeTask): void;
  /** A container runs and its record says so. Called while its lock is held; does not throw. */
  started(id: string): Promise<void>;
  /** A start failed, everything is released and recorded. Called while the container's lock is held. */
  failed(record: ContainerRecord, failure: StartFailure, cause: StartCause): Promise<void>;
  /** A restart by policy that was due is no longer needed. */
  cancelBackOff(id: string): void;
  /** A container in quarantine may be whole again. Called while its lock is held. */
  review(record: ContainerRecord): Promise<ContainerRecord>;
}

/** The start saga. Everything it makes is undone when a step fails, and by recovery when a crash cuts it short. */
export class Starter {
  readonly #context: ContainerContext;
  readonly #hooks: StarterHooks;
  readonly #limit: LimitFunction;
  #isClosed = false;

  constructor(context: ContainerContext, hooks: StarterHooks) {
    this.#context = context;
    this.#hooks = hooks;
    this.#limit = pLimit(context.settings.concurrentStarts);
  }

  /**
   * Start a container.
   *
   * @throws EngineError `notFound`; `conflict` while it is paused or being removed; otherwise what the start ran into, which the record shows too.
   */
  start(id: string, cause: StartCause): Promise<StartResult> {
    return this.#limit(() => this.#context.locks.run(id, () => this.startLocked(id, cause)));
  }

  /** Every start from now on is refused. One under way goes on, under its container's lock. */
  close(): void {
    this.#isClosed = true;
  }

  /** As `start`, for a caller that holds the container's lock. */
  async startLocked(id: string, cause: StartCause): Promise<StartResult> {
    if (this.#isClosed) throw unavailable('the engine is shutting down');
    const found = this.#context.store.get(id);
    if (found === undefined) throw notFound(`No such container: ${id}`);
    const record = stateOf(found) === 'dead' ? await this.#hooks.review(found) : found;
    const state = stateOf(record);
    if (state === 'paused') throw conflict('cannot start a paused container, try unpause instead');
    if (state === 'removing' || state === 'dead' || record.internals.removal !== null) {
      throw conflict('container is marked for removal and cannot be started');
    }
    if (isLive(state) || (state === 'restarting' && cause.kind !== 'policy')) {
      return { outcome: container.StartOutcome.ALREADY_STARTED, revision: record.revision };
    }
    this.#hooks.cancelBackOff(id);
    await this.#context.rootfsUses.settle(id);
    return this.#context.sandboxBarrier.pass(id, () => this.#attempt(record, cause));
  }

  async #attempt(record: ContainerRecord, cause: StartCause): Promise<StartResult> {
    const { id } = record.container;
    let task: RuntimeTask | undefined;
    try {
      const prepared = await prepareRun(this.#context, record);
      try {
        task = await this.#createTask(record, prepared, cause.kind === 'user' ? cause.checkpoint : undefined);
      } finally {
        await prepared[Symbol.asyncDispose]();
      }
      await this.#nameDomain(record, task);
      await task.start();
      const revision = await this.#recordRunning(record, prepared, task, cause);
      this.#hooks.watch(task);
      await this.#hooks.started(id);
      return { outcome: container.StartOutcome.STARTED, revision };
    } catch (error) {
      const failure = describeStartFailure(error);
      this.#context.log.info({ containerId: id, reason: failure.message }, 'container could not be started');
      await this.#undo(record, task);
      const failed = await this.#recordFailure(record, failure);
      await this.#hooks.failed(failed, failure, cause);
      throw failure.error;
    }
  }

  #createTask(
    { container: shown, internals }: ContainerRecord,
    prepared: PreparedRun,
    checkpoint: string | undefined,
  ): Promise<RuntimeTask> {
    const { settings, runtime } = this.#context;
    const name = shown.hostConfig.runtime === '' ? settings.defaultRuntime : shown.hostConfig.runtime;
    this.#context.log.debug({ containerId: shown.id, mounts: internals.mounts.length }, 'bundle is ready');
    return runtime.create({
      id: shown.id,
      bundle: prepared.bundle,
      terminal: shown.config.tty,
      openStdin: shown.config.openStdin,
      stdinOnce: shown.config.stdinOnce,
      runtimeBinary: settings.runtimes.get(name) ?? name,
      systemdCgroup: settings.systemdCgroup,
      ...(checkpoint === undefined ? {} : { checkpoint }),
      ...(settings.shimCgroup === '' ? {} : { shimCgroup: settings.shimCgroup }),
      ...(prepared.idMap === undefined ? {} : { ioOwner: prepared.idMap.root }),
      log: logSinkOf(shown, settings),
    });
  }

  /** What the runtime cannot do in a user namespace, where the kernel keeps this setting for the host's root. */
  async #nameDomain({ container: shown, internals }: ContainerRecord, task: RuntimeTask): Promise<void> {
    const { domainName } = shown.config;
    if (domainName === '' || shown.hostConfig.utsMode === 'host' || (internals.userNamespace ?? null) === null) return;
    await this.#context.rootfs.nameDomain(task.pid, domainName);
  }

  async #undo(record: ContainerRecord, task: RuntimeTask | undefined): Promise<void> {
    const { id } = record.container;
    if (task === undefined) {
      await this.#context.runtime.abandon(id);
    } else {
      await task.kill(9, true).catch((error: unknown) => {
        // It never ran, or has ended: deleting it is what counts.
        this.#context.log.debug({ containerId: id, reason: messageOf(error) }, 'nothing to kill');
      });
    }
    await releaseRun(this.#context, record, task ?? 'no task');
  }

  #recordRunning(
    { container: shown, internals }: ContainerRecord,
    { sandbox, etc, networkNamespace, shmPath, appArmorProfile = '' }: PreparedRun,
    task: RuntimeTask,
    cause: StartCause,
  ): Promise<bigint> {
    const { store, settings } = this.#context;
    const running: ContainerRecord['container'] = {
      ...shown,
      state: {
        ...shown.state,
        status: toStatus(transition(stateOf({ container: shown }), 'running')),
        pid: task.pid,
        exitCode: 0,
        error: '',
        oomKilled: false,
        startedAt: timestampNow(this.#context),
        health: healthAtStart(shown.config),
      },
      networkSettings: {
        sandboxId: sandbox?.sandboxId ?? '',
        sandboxKey: sandbox?.namespacePath ?? (networkNamespace.kind === 'path' ? networkNamespace.path : ''),
        networks: shown.networkSettings.networks.map((settled) => ({
          ...settled,
          endpoint: sandbox?.endpoints.find(
            (endpoint) => endpoint.networkId === settled.networkId || endpoint.networkName === settled.network,
          ),
        })),
        ports: sandbox?.ports ?? [],
      },
      hostsPath: etc.hosts,
      hostnamePath: etc.hostname,
      resolvConfPath: etc.resolvConf,
      mergedDir: rootfsDir(settings, shown.id),
      restartCount: cause.kind === 'policy' ? shown.restartCount : 0,
      manuallyStopped: false,
      appArmorProfile,
    };
    return store.commit((batch) => {
      batch.put({
        container: running,
        internals: {
          ...internals,
          task: { shimAddress: task.shimAddress, ...(shmPath === undefined ? {} : { shmPath }) },
          hasBeenStarted: true,
          backOff: null,
          previousDelayMs: cause.kind === 'policy' ? internals.previousDelayMs : 0,
          exitIsFinal: false,
          stopRequestId: null,
          restartRequestId: null,
        },
      });
      batch.emit(containerStarted(running));
      if (cause.kind === 'restart') {
        batch.emit(containerRestarted(running));
        batch.reply(cause.requestId, container.RestartContainerResponse.encode({ revision: batch.revision }).finish());
      } else if (cause.kind === 'user') {
        const response = { outcome: container.StartOutcome.STARTED, revision: batch.revision };
        batch.reply(cause.requestId, container.StartContainerResponse.encode(response).finish());
      }
    });
  }

  async #recordFailure(
    { container: shown, internals }: ContainerRecord,
    failure: StartFailure,
  ): Promise<ContainerRecord> {
    const { store } = this.#context;
    const wasRestarting = stateOf({ container: shown }) === 'restarting';
    const state: container.ContainerState = {
      ...shown.state,
      status: wasRestarting ? toStatus(transition('restarting', 'exited')) : shown.state.status,
      pid: 0,
      exitCode: failure.exitCode,
      error: failure.message,
    };
    const failed = {
      container: { ...shown, state },
      internals: { ...internals, task: null, backOff: null, restartRequestId: null },
    };
    await store.commit((batch) => batch.put(failed));
    this.#context.runtime.forgetStreams(shown.id);
    return store.get(shown.id) ?? { ...failed, revision: store.revision };
  }
}
