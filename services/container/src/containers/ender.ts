import { setTimeout as delay } from 'node:timers/promises';
import { messageOf } from '@flotilla/errors';
import { container, timestampFromNs, timestampToNs } from '@flotilla/proto';
import type { RuntimeTask, TaskExit } from '../runtime/runtime.js';
import { type ContainerRecord, stateOf, toStatus } from '../store/container-record.js';
import type { ContainerContext } from './context.js';
import { containerDied, containerOutOfMemory, containerStopped } from './events.js';
import { releaseRun, releaseSandbox } from './release.js';
import { decideRestart, parseRestartPolicy } from './restart-policy.js';
import { transition } from './state.js';

export interface EnderHooks {
  /** Finish a removal. Called while the container's lock is held. */
  remove(record: ContainerRecord): Promise<void>;
  /** Second half of a restart. Called while the container's lock is held. */
  startAgain(id: string, requestId: string): Promise<void>;
  /** A restart by policy is due. */
  startByPolicy(id: string): Promise<void>;
}

/** How long the end of a container is held back for its ports to be free again. */
const networkReleaseMs = 2000;
/** Between tries to write an end down, doubled each time. */
const firstRetryMs = 500;
const maxRetryMs = 10_000;

/** Watches tasks and does what follows from their end. */
export class Ender {
  readonly #context: ContainerContext;
  readonly #hooks: EnderHooks;
  readonly #backOffs = new Map<string, NodeJS.Timeout>();
  readonly #handling = new Set<Promise<void>>();
  readonly #closing = new AbortController();
  #holdsRestarts = false;

  constructor(context: ContainerContext, hooks: EnderHooks) {
    this.#context = context;
    this.#hooks = hooks;
  }

  watch(task: RuntimeTask): void {
    this.#context.tasks.set(task.id, task);
    void task.exited.then((exit) => {
      if (!this.#isClosed) this.#track(this.#ended(task, exit));
    });
  }

  /** A task that nobody can ask any more: as `watch` for one that has ended. */
  async endGone(id: string, exit: TaskExit): Promise<void> {
    await this.#context.locks.run(id, () => this.#conclude(id, undefined, exit));
  }

  /** The kernel killed a process of a container for want of memory. */
  async noteOutOfMemory(id: string): Promise<void> {
    const record = this.#context.store.get(id);
    if (record !== undefined)
      await this.#context.store.commit((batch) => batch.emit(containerOutOfMemory(record.container)));
  }

  /** Start a container by its policy when the time comes; one that is due already, at once. */
  scheduleRestart(id: string, dueAtMs: number): void {
    this.cancelBackOff(id);
    if (this.#isClosed || this.#holdsRestarts) return;
    const timer = setTimeout(
      () => {
        this.#backOffs.delete(id);
        this.#track(this.#hooks.startByPolicy(id));
      },
      Math.max(0, dueAtMs - Date.now()),
    );
    this.#backOffs.set(id, timer);
  }

  cancelBackOff(id: string): void {
    clearTimeout(this.#backOffs.get(id));
    this.#backOffs.delete(id);
  }

  /** Restarts that are due stay so until the next start of the engine. */
  holdRestarts(): void {
    this.#holdsRestarts = true;
    for (const timer of this.#backOffs.values()) clearTimeout(timer);
    this.#backOffs.clear();
  }

  /** Begin nothing new and wait for what is under way. Tasks run on. */
  async close(): Promise<void> {
    this.#closing.abort();
    for (const timer of this.#backOffs.values()) clearTimeout(timer);
    this.#backOffs.clear();
    await Promise.allSettled([...this.#handling]);
  }

  #track(work: Promise<void>): void {
    const handled = work.catch((error: unknown) => {
      this.#context.log.error({ err: error }, 'the end of a container could not be handled');
    });
    this.#handling.add(handled);
    void handled.finally(() => this.#handling.delete(handled));
  }

  get #isClosed(): boolean {
    return this.#closing.signal.aborted;
  }

  /** An end that cannot be written down (a full disk) is tried until it can be: whoever waits for it hears of it then. */
  async #ended(task: RuntimeTask, exit: TaskExit): Promise<void> {
    const { locks, tasks, log } = this.#context;
    const drained = task.drained();
    for (let retryMs = firstRetryMs; ; retryMs = Math.min(2 * retryMs, maxRetryMs)) {
      try {
        await locks.run(task.id, async () => {
          if (tasks.get(task.id) !== task) return;
          await drained;
          await this.#conclude(task.id, task, exit);
        });
        return;
      } catch (error) {
        // The task is forgotten when its end is recorded: what failed came after that.
        if (this.#isClosed || tasks.get(task.id) !== task) throw error;
        log.warn({ containerId: task.id, reason: messageOf(error), retryMs }, 'end not written down yet');
        await delay(retryMs, undefined, { signal: this.#closing.signal }).catch(() => undefined);
      }
    }
  }

  async #conclude(id: string, task: RuntimeTask | undefined, exit: TaskExit): Promise<void> {
    const record = this.#context.store.get(id);
    if (record === undefined) return;
    const networkReleased = await this.#releaseNetwork(record);
    const ended = await this.#recordEnd(record, exit);
    this.#context.tasks.delete(id);
    await releaseRun(this.#context, ended, task ?? 'unknown', networkReleased);
    const { internals } = ended;
    if (internals.backOff !== null) this.scheduleRestart(id, internals.backOff.dueAtMs);
    else if (internals.removal !== null) await this.#hooks.remove(ended);
    else if (internals.restartRequestId !== null) await this.#hooks.startAgain(id, internals.restartRequestId);
  }

  /** Ports and addresses are free when the end is seen, unless the network service keeps us waiting. */
  async #releaseNetwork(record: ContainerRecord): Promise<boolean> {
    const released = releaseSandbox(this.#context, record).then(
      () => true,
      (error: unknown) => {
        this.#context.log.warn({ containerId: record.container.id, reason: messageOf(error) }, 'sandbox not released');
        return false;
      },
    );
    const timeUp = new AbortController();
    const late = delay(networkReleaseMs, false, { signal: timeUp.signal, ref: false }).catch(() => false);
    try {
      return await Promise.race([released, late]);
    } finally {
      timeUp.abort();
    }
  }

  async #recordEnd(record: ContainerRecord, exit: TaskExit): Promise<ContainerRecord> {
    const { container: shown, internals } = record;
    const { store, log } = this.#context;
    const ranForMs = runTime(shown.state, exit);
    const restart = this.#decideRestart(record, exit, ranForMs);
    const removal =
      internals.removal ??
      (shown.hostConfig.autoRemove && internals.restartRequestId === null ? { volumes: true, requestId: '' } : null);
    const state = transition(stateOf(record), restart === undefined ? 'exited' : 'restarting');
    const ended: Pick<ContainerRecord, 'container' | 'internals'> = {
      container: {
        ...shown,
        restartCount: shown.restartCount + (restart === undefined ? 0 : 1),
        state: {
          ...shown.state,
          status: toStatus(state),
          pid: 0,
          exitCode: exit.exitCode,
          oomKilled: exit.oomKilled,
          finishedAt: timestampFromNs(exit.exitedAtNs),
        },
        networkSettings: {
          sandboxId: '',
          sandboxKey: '',
          networks: shown.networkSettings.networks.map((settings) => ({ ...settings, endpoint: undefined })),
          ports: [],
        },
      },
      internals: {
        ...internals,
        exitSequence: internals.exitSequence + 1,
        task: null,
        backOff: restart === undefined ? null : { delayMs: restart.delayMs, dueAtMs: Date.now() + restart.delayMs },
        previousDelayMs: restart?.delayMs ?? 0,
        stopRequestId: null,
        commitFreeze: null,
        removal,
      },
    };
    await store.commit((batch) => {
      batch.put(ended);
      batch.emit(containerDied(ended.container, exit.exitCode, ranForMs));
      if (internals.stopRequestId !== null || internals.restartRequestId !== null) {
        batch.emit(containerStopped(ended.container));
      }
      if (internals.stopRequestId !== null) {
        const response = { outcome: container.StopOutcome.STOPPED, revision: batch.revision };
        batch.reply(internals.stopRequestId, container.StopContainerResponse.encode(response).finish());
      }
    });
    log.info({ containerId: shown.id, exitCode: exit.exitCode, restartInMs: restart?.delayMs }, 'container ended');
    return store.get(shown.id) ?? { ...ended, revision: store.revision };
  }

  #decideRestart(
    { container: shown, internals }: ContainerRecord,
    exit: TaskExit,
    ranForMs: number,
  ): { delayMs: number } | undefined {
    if (internals.removal !== null || internals.restartRequestId !== null) return undefined;
    const { name = '', maximumRetryCount = 0 } = shown.hostConfig.restartPolicy ?? {};
    return decideRestart(parseRestartPolicy(name, maximumRetryCount), {
      exitCode: exit.exitCode,
      ranForMs,
      restartCount: shown.restartCount,
      previousDelayMs: internals.previousDelayMs,
      stoppedByUser: internals.exitIsFinal,
    });
  }
}

function runTime(state: container.ContainerState, exit: TaskExit): number {
  return state.startedAt === undefined ? 0 : Number((exit.exitedAtNs - timestampToNs(state.startedAt)) / 1_000_000n);
}
