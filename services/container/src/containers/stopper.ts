import { conflict, internal, invalidArgument, isEngineError, notFound } from '@flotilla/errors';
import { container } from '@flotilla/proto';
import type { ContainerBatch } from '../store/container-store.js';
import { type ContainerRecord, stateOf, toStatus } from '../store/container-record.js';
import { defaultStopSignal } from './config-merge.js';
import type { ContainerContext } from './context.js';
import { containerKilled, containerStopped, containerUnpaused } from './events.js';
import { parseSignal } from './signals.js';
import { isLive, transition } from './state.js';

export interface StopOptions {
  /** Empty: the container's own. */
  signal: string;
  /** Absent: the container's own; negative: for ever. */
  timeoutSeconds: number | undefined;
  requestId: string;
}

export interface StopResult {
  outcome: container.StopOutcome;
  revision: bigint;
}

/** What a signal changes in the record, in the batch before it is sent. */
type Mark = (record: ContainerRecord) => Partial<ContainerRecord['internals']>;

/** Whose wish an end is: what only the engine has stopped is started again by its restart policy. */
type Author = 'user' | 'engine';

const killSignal = 9;
/** How long a killed container may take to end. */
const killWaitMs = 10_000;

/** Ends containers: stop, kill, and the first half of restart. */
export class Stopper {
  readonly #context: ContainerContext;
  readonly #cancelBackOff: (id: string) => void;

  constructor(context: ContainerContext, cancelBackOff: (id: string) => void) {
    this.#context = context;
    this.#cancelBackOff = cancelBackOff;
  }

  /** Signal, wait, kill. A caller that goes away does not stop the stop. */
  async stop(name: string, options: StopOptions): Promise<StopResult> {
    const { id } = this.#context.store.resolve(name).container;
    const stopped = await this.#end(id, options, () => ({ stopRequestId: options.requestId }));
    if (stopped === undefined) {
      const revision = this.#context.store.get(id)?.revision ?? 0n;
      return { outcome: container.StopOutcome.ALREADY_STOPPED, revision };
    }
    return { outcome: container.StopOutcome.STOPPED, revision: stopped };
  }

  /** First half of a restart: the end of the task starts it again. @returns false when nothing ran. */
  async stopForRestart(id: string, options: StopOptions): Promise<boolean> {
    return (await this.#end(id, options, () => ({ restartRequestId: options.requestId }))) !== undefined;
  }

  /** Stop a container because the engine stops; one that waits for its restart goes on waiting. @returns whether it ran. */
  async stopWithEngine(id: string, options: Pick<StopOptions, 'signal' | 'timeoutSeconds'>): Promise<boolean> {
    if (this.#context.store.get(id) === undefined) return false;
    const marked = { ...options, requestId: '' };
    return (await this.#end(id, marked, () => ({ stopRequestId: '' }), 'engine')) !== undefined;
  }

  /** Time that a stop gives this container: its own, or the engine's. Negative: for ever. */
  timeoutSecondsOf({ config }: Pick<container.Container, 'config'>): number {
    return config?.stopTimeoutSeconds ?? this.#context.settings.defaultStopTimeoutSeconds;
  }

  /**
   * Send a signal; after KILL the container's end is waited for.
   *
   * @throws EngineError `invalidArgument` for an unknown signal; `conflict` when it does not run.
   */
  async kill(name: string, signal: string, requestId: string): Promise<bigint> {
    const record = this.#context.store.resolve(name);
    const { id, config } = record.container;
    const number = signal === '' ? killSignal : parseSignal(signal);
    const isFinal = number === killSignal || config.stopSignal === '' || parseSignal(config.stopSignal) === number;
    if (stateOf(record) === 'restarting') return (await this.#endBackOff(id, requestId, 'kill')) ?? record.revision;
    const before = record.internals.exitSequence;
    const revision = await this.#context.locks.run(id, async () => {
      const current = this.#context.store.get(id);
      if (current === undefined || !isLive(stateOf(current))) {
        throw conflict(`cannot kill container: ${name}: container ${id} is not running`);
      }
      return this.#signal(current, number, isFinal, () => ({}), requestId);
    });
    if (number !== killSignal) return revision;
    const ended = await this.#context.watchpoints.within(id, killWaitMs, (now) => endedSince(now, before));
    if (ended === undefined) throw internal('tried to kill container, but did not receive an exit event');
    return ended;
  }

  /** Kill a container that is to be removed; its end continues the removal. @returns false when nothing ran. */
  async killForRemoval(id: string, removal: { volumes: boolean; requestId: string }): Promise<boolean> {
    return this.#context.locks.run(id, async () => {
      const current = this.#context.store.get(id);
      if (current === undefined || !isLive(stateOf(current))) return false;
      await this.#signal(current, killSignal, true, () => ({ removal }), '');
      return true;
    });
  }

  /** @returns the revision of the end, or nothing when the container did not run. */
  async #end(id: string, options: StopOptions, mark: Mark, by: Author = 'user'): Promise<bigint | undefined> {
    const record = this.#context.store.get(id);
    if (record === undefined) throw notFound(`No such container: ${id}`);
    const { config } = record.container;
    const name =
      options.signal === '' ? (config.stopSignal === '' ? defaultStopSignal : config.stopSignal) : options.signal;
    const signal = parseSignal(name);
    const timeoutSeconds = options.timeoutSeconds ?? this.timeoutSecondsOf(record.container);
    if (!Number.isInteger(timeoutSeconds)) throw invalidArgument(`invalid timeout: ${timeoutSeconds}`);
    if (stateOf(record) === 'restarting' && by === 'user') {
      const stopped = await this.#endBackOff(id, options.requestId, 'stop');
      if (stopped !== undefined) return stopped;
    }
    const begun = await this.#context.locks.run(id, async () => {
      const current = this.#context.store.get(id);
      if (current === undefined || !isLive(stateOf(current))) return undefined;
      await this.#signal(current, signal, true, mark, '', by);
      return current.internals.exitSequence;
    });
    if (begun === undefined) return undefined;
    return this.#awaitEnd(id, begun, timeoutSeconds, by);
  }

  async #awaitEnd(id: string, before: number, timeoutSeconds: number, by: Author): Promise<bigint> {
    const test = (now: ContainerRecord | undefined): bigint | undefined => endedSince(now, before);
    const { watchpoints, locks, store } = this.#context;
    if (timeoutSeconds < 0) return watchpoints.until(id, test);
    const inTime = await watchpoints.within(id, timeoutSeconds * 1000, test);
    if (inTime !== undefined) return inTime;
    this.#context.log.info({ containerId: id, timeoutSeconds }, 'container did not end in time, it is killed');
    await locks.run(id, async () => {
      const current = store.get(id);
      if (current !== undefined && isLive(stateOf(current)) && current.internals.exitSequence === before) {
        await this.#signal(current, killSignal, true, () => ({}), '', by);
      }
    });
    const killed = await watchpoints.within(id, killWaitMs, test);
    if (killed === undefined) {
      throw internal(`cannot stop container: ${id}: tried to kill container, but did not receive an exit event`);
    }
    return killed;
  }

  /**
   * Under the container's lock: first write down that a user wants it ended (a crash must not let the policy start it again), then signal, then
   * tell. A frozen container is let go so that the signal reaches it.
   */
  async #signal(
    record: ContainerRecord,
    signal: number,
    isFinal: boolean,
    mark: Mark,
    requestId: string,
    by: Author = 'user',
  ): Promise<bigint> {
    const { store, tasks } = this.#context;
    const { id } = record.container;
    const task = tasks.get(id);
    if (task === undefined) throw conflict(`container ${id} is not running`);
    const wakes = stateOf(record) === 'paused' && isFinal;
    const status = wakes ? toStatus(transition('paused', 'running')) : record.container.state.status;
    const marked: Pick<ContainerRecord, 'container' | 'internals'> = {
      container: {
        ...record.container,
        manuallyStopped: record.container.manuallyStopped || (isFinal && by === 'user'),
        state: { ...record.container.state, status },
      },
      internals: {
        ...record.internals,
        ...(wakes ? { commitFreeze: null } : {}),
        exitIsFinal: record.internals.exitIsFinal || isFinal,
        ...mark(record),
      },
    };
    if (isFinal) {
      try {
        await store.commit((batch) => batch.put(marked));
      } catch (error) {
        // Perhaps this very container fills the disk: once it is dead there is room to write that down.
        if (signal !== killSignal) throw error;
      }
    }
    try {
      await task.kill(signal, signal === killSignal);
    } catch (error) {
      // It has just ended: its end is handled as soon as the lock is free.
      if (!isEngineError(error, 'notFound')) throw error;
    }
    if (wakes) await task.resume().catch(() => undefined);
    return store.commit((batch) => {
      // Put again so that the revision belongs to a change that watchers see.
      batch.put(marked);
      batch.emit(containerKilled(marked.container, signal));
      if (wakes) batch.emit(containerUnpaused(marked.container));
      batch.reply(requestId, container.KillContainerResponse.encode({ revision: batch.revision }).finish());
    });
  }

  /** A container that waits for its restart by policy is not started again. */
  #endBackOff(id: string, requestId: string, what: 'stop' | 'kill'): Promise<bigint | undefined> {
    return this.#context.locks.run(id, async () => {
      const current = this.#context.store.get(id);
      if (current === undefined || stateOf(current) !== 'restarting') return undefined;
      this.#cancelBackOff(id);
      const stopped = endOfBackOff(current);
      return this.#context.store.commit((batch) => {
        batch.put(stopped);
        if (what === 'stop') batch.emit(containerStopped(stopped.container));
        this.#replyTo(batch, requestId, what);
      });
    });
  }

  #replyTo(batch: ContainerBatch, requestId: string, what: 'stop' | 'kill'): void {
    const { revision } = batch;
    const payload =
      what === 'stop'
        ? container.StopContainerResponse.encode({ outcome: container.StopOutcome.STOPPED, revision }).finish()
        : container.KillContainerResponse.encode({ revision }).finish();
    batch.reply(requestId, payload);
  }
}

/** The record of a container that a user stopped while it waited for its restart. */
export function endOfBackOff(record: ContainerRecord): Pick<ContainerRecord, 'container' | 'internals'> {
  return {
    container: {
      ...record.container,
      manuallyStopped: true,
      state: { ...record.container.state, status: toStatus(transition(stateOf(record), 'exited')) },
    },
    internals: { ...record.internals, backOff: null, exitIsFinal: true },
  };
}

function endedSince(record: ContainerRecord | undefined, before: number): bigint | undefined {
  if (record === undefined) return 0n;
  return record.internals.exitSequence > before ? record.revision : undefined;
}
