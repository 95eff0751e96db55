import { conflict, internal, invalidArgument, isEngineError, notFound } from '@flotilla/errors';
import { container, type network, type Timestamp, timestampToNs } from '@flotilla/proto';
import { KeyedLocks } from '@flotilla/store';
import type { RuntimeTask } from '../runtime/runtime.js';
import { type ContainerRecord, stateOf, toStatus } from '../store/container-record.js';
import { Checkpoints } from './checkpoints.js';
import { Committer } from './committer.js';
import type { ContainerContext } from './context.js';
import { Creator } from './creator.js';
import { Ender } from './ender.js';
import { containerPaused, containerRenamed, containerResized, containersPruned, containerUnpaused } from './events.js';
import { Linking } from './linking.js';
import { shownLinks } from './links.js';
import { parseContainerName } from './names.js';
import { Networking } from './networking.js';
import { Quarantine } from './quarantine.js';
import { Remover, type RemoveOptions } from './remover.js';
import { RootfsUses } from './rootfs-uses.js';
import { type StartCause, Starter, type StartResult } from './starter.js';
import type { StartFailure } from './start-failure.js';
import { isLive, transition } from './state.js';
import { Stopper, type StopOptions, type StopResult } from './stopper.js';
import { LayersGate } from './layers-gate.js';
import { StartBarrier } from './start-barrier.js';
import { StartTurns } from './start-turns.js';
import { stopAll } from './stop-all.js';
import { beginWait, type StartedWait, type WaitCondition } from './waits.js';
import { type UpdateRequest, updateContainer } from './updater.js';
import { Watchpoints } from './watchpoints.js';

/** What `Containers` is made of; the rest of the context is its own. */
export type ContainersDeps = Omit<
  ContainerContext,
  'locks' | 'tasks' | 'watchpoints' | 'rootfsUses' | 'layersGate' | 'holderBarrier' | 'sandboxBarrier'
>;

/** Which of the containers that do not run a prune means. */
export interface PruneFilter {
  /** Only those made before. */
  until: Timestamp | undefined;
  /** Whether the caller may see, and means, a container with these labels. */
  matchesLabels: (labels: Readonly<Record<string, string>>) => boolean;
}

/** The life of containers: every operation of the API, with one lock per container. */
export class Containers {
  readonly context: ContainerContext;
  readonly checkpoints: Checkpoints;
  readonly quarantine: Quarantine;
  readonly #committer: Committer;
  readonly #creator: Creator;
  readonly #starter: Starter;
  readonly #ender: Ender;
  readonly #stopper: Stopper;
  readonly #remover: Remover;
  readonly #networking: Networking;
  readonly #linking: Linking;
  readonly #turns = new StartTurns();
  readonly #endWatching: (() => void)[] = [];

  constructor(deps: ContainersDeps) {
    this.context = {
      ...deps,
      locks: new KeyedLocks(),
      tasks: new Map<string, RuntimeTask>(),
      watchpoints: new Watchpoints(deps.store),
      rootfsUses: new RootfsUses(),
      layersGate: new LayersGate(),
      holderBarrier: new StartBarrier(),
      sandboxBarrier: new StartBarrier(),
    };
    const { context } = this;
    this.checkpoints = new Checkpoints(context);
    this.quarantine = new Quarantine(context);
    const cancelBackOff = (id: string): void => this.#ender.cancelBackOff(id);
    this.#committer = new Committer(context);
    this.#creator = new Creator(context);
    this.#stopper = new Stopper(context, cancelBackOff);
    this.#linking = new Linking(context);
    this.#remover = new Remover(context, this.#stopper, cancelBackOff, (id) => this.#linking.changed(id));
    this.#networking = new Networking(context);
    this.#starter = new Starter(context, {
      watch: (task) => this.#ender.watch(task),
      started: async (id) => {
        const record = context.store.get(id);
        if (record !== undefined) await this.#linking.started(record.container);
      },
      failed: (record, failure, cause) => this.#startFailed(record, failure, cause),
      cancelBackOff,
      review: (record) => this.quarantine.review(record),
    });
    this.#ender = new Ender(context, {
      remove: async (record) => {
        await this.#remover.removeLocked(record);
      },
      startAgain: async (id, requestId) => {
        await this.#starter.startLocked(id, { kind: 'restart', requestId }).catch(() => undefined);
      },
      startByPolicy: async (id) => {
        await this.#turns.run(id, () => this.#starter.start(id, { kind: 'policy' })).catch(() => undefined);
      },
    });
    const endOomWatch = context.runtime.onOom((id) => {
      this.#ender.noteOutOfMemory(id).catch((error: unknown) => context.log.warn({ err: error }, 'oom event lost'));
    });
    // A container that will not be started any more (stopped, removed, out of tries) keeps nobody waiting.
    const endTurnWatch = context.store.onChange((_revision, changes) => {
      for (const [id, record] of changes) {
        if (record === undefined || ['exited', 'dead', 'removing'].includes(stateOf(record))) this.#turns.settle(id);
      }
    });
    this.#endWatching.push(endOomWatch, endTurnWatch);
  }

  /** Parts that recovery drives. */
  get recoveryParts(): {
    committer: Committer;
    ender: Ender;
    linking: Linking;
    starter: Starter;
    remover: Remover;
    turns: StartTurns;
  } {
    return {
      committer: this.#committer,
      ender: this.#ender,
      linking: this.#linking,
      starter: this.#starter,
      remover: this.#remover,
      turns: this.#turns,
    };
  }

  create(request: container.CreateContainerRequest, requestId: string): Promise<container.CreateContainerResponse> {
    return this.#creator.create(request, requestId);
  }

  /** Start a container, from a checkpoint if one is named. */
  async start(name: string, requestId: string, from = { checkpoint: '', directory: '' }): Promise<StartResult> {
    const { id } = this.context.store.resolve(name).container;
    const path =
      from.checkpoint === '' ? undefined : await this.checkpoints.find(name, from.checkpoint, from.directory);
    return this.#starter.start(id, { kind: 'user', requestId, ...(path === undefined ? {} : { checkpoint: path }) });
  }

  stop(name: string, options: StopOptions): Promise<StopResult> {
    return this.#stopper.stop(name, options);
  }

  kill(name: string, signal: string, requestId: string): Promise<bigint> {
    return this.#stopper.kill(name, signal, requestId);
  }

  /** Stop and start; one that does not run is started. */
  async restart(name: string, options: StopOptions): Promise<bigint> {
    const record = this.context.store.resolve(name);
    const { id } = record.container;
    // A request that is repeated after a crash finds its restart under way.
    const isUnderWay = record.internals.restartRequestId === options.requestId && options.requestId !== '';
    if (!isUnderWay && !(await this.#stopper.stopForRestart(id, options))) {
      return (await this.#starter.start(id, { kind: 'restart', requestId: options.requestId })).revision;
    }
    await this.context.watchpoints.until(id, (now) =>
      now?.internals.restartRequestId === options.requestId ? undefined : true,
    );
    const restarted = this.context.store.get(id);
    if (restarted === undefined) throw notFound(`No such container: ${name}`);
    const { error } = restarted.container.state;
    if (error !== '') throw internal(`Cannot restart container ${name}: ${error}`);
    return restarted.revision;
  }

  /** Remove a container, or one of its links. */
  remove(name: string, options: RemoveOptions): Promise<bigint> {
    return options.link && name.replace(/^\//, '').includes('/')
      ? this.#linking.unlink(name, options.requestId)
      : this.#remover.remove(name, options);
  }

  /** @throws EngineError `conflict` unless it runs. */
  pause(name: string, requestId: string): Promise<bigint> {
    return this.#locked(name, async (record) => {
      const { id } = record.container;
      const state = stateOf(record);
      if (state === 'restarting') throw conflict(`Container ${id} is restarting, wait until the container is running`);
      if (state === 'paused') throw conflict(`Container ${id} is already paused`);
      const task = this.#requireTask(record);
      await task.pause();
      const paused = withStatus(record, 'paused');
      return this.context.store.commit((batch) => {
        batch.put(paused);
        batch.emit(containerPaused(paused.container));
        batch.reply(requestId, container.PauseContainerResponse.encode({ revision: batch.revision }).finish());
      });
    });
  }

  /** @throws EngineError `conflict` unless it is paused. */
  unpause(name: string, requestId: string): Promise<bigint> {
    return this.#locked(name, async (record) => {
      if (stateOf(record) !== 'paused') throw conflict(`Container ${record.container.id} is not paused`);
      await this.#requireTask(record).resume();
      const running = withStatus(record, 'running');
      return this.context.store.commit((batch) => {
        batch.put({ ...running, internals: { ...running.internals, commitFreeze: null } });
        batch.emit(containerUnpaused(running.container));
        batch.reply(requestId, container.UnpauseContainerResponse.encode({ revision: batch.revision }).finish());
      });
    });
  }

  commit(
    request: container.CommitContainerRequest,
    requestId: string,
    signal: AbortSignal,
  ): Promise<container.CommitContainerResponse> {
    return this.#committer.commit(request, requestId, signal);
  }

  /** @throws EngineError `invalidArgument` for a bad name, `alreadyExists` for one in use. */
  async rename(name: string, newName: string, requestId: string): Promise<bigint> {
    const { id } = this.context.store.resolve(name).container;
    const revision = await this.#rename(name, newName, requestId);
    await this.#linking.changed(id);
    return revision;
  }

  #rename(name: string, newName: string, requestId: string): Promise<bigint> {
    if (newName === '') throw invalidArgument('Neither old nor new names may be empty');
    return this.#locked(name, async (record) => {
      const { id, name: oldName } = record.container;
      const bare = prefixErrors('Error when allocating new name: ', () => parseContainerName(newName));
      if (bare === oldName) throw invalidArgument('Renaming a container with the same name as its current name');
      const { store } = this.context;
      prefixErrors('Error when allocating new name: ', () => store.reserveName(bare, id));
      try {
        const live = isLive(stateOf(record)) && record.internals.network.kind === 'networks';
        const endpoints = live ? await this.context.peers.networks.rename(id, bare) : [];
        const { networkSettings, hostConfig } = record.container;
        const { links = [] } = record.internals;
        const renamed = {
          ...record.container,
          name: bare,
          hostConfig: links.length === 0 ? hostConfig : { ...hostConfig, links: shownLinks(store, bare, links) },
          networkSettings: {
            ...networkSettings,
            networks: networkSettings.networks.map((settings) => ({
              ...settings,
              endpoint: endpoints.find(({ networkId }) => networkId === settings.networkId) ?? settings.endpoint,
            })),
          },
        };
        return await store.commit((batch) => {
          batch.put({ container: renamed, internals: record.internals });
          batch.emit(containerRenamed(renamed, oldName));
          batch.reply(requestId, container.RenameContainerResponse.encode({ revision: batch.revision }).finish());
        });
      } catch (error) {
        store.releaseName(bare, id);
        throw error;
      }
    });
  }

  /** @throws EngineError `conflict` unless it runs. */
  async resize(name: string, height: number, width: number): Promise<void> {
    const record = this.context.store.resolve(name);
    await this.#requireTask(record).resize(width, height);
    await this.context.store.commit((batch) => batch.emit(containerResized(record.container, height, width)));
  }

  /** Change limits and restart policy. */
  update(name: string, request: UpdateRequest): Promise<container.UpdateContainerResponse> {
    return this.#locked(name, (record) => updateContainer(this.context, record, request));
  }

  wait(name: string, condition: WaitCondition, resumeAfter: number | undefined, signal: AbortSignal): StartedWait {
    return beginWait(this.context, name, condition, resumeAfter, signal);
  }

  connect(name: string, endpoint: network.EndpointRequest): Promise<bigint> {
    return this.#locked(name, (record) => this.#networking.connect(record, endpoint));
  }

  disconnect(name: string, networkName: string, force: boolean): Promise<bigint> {
    return this.#locked(name, (record) => this.#networking.disconnect(record, networkName, force));
  }

  /** Remove containers that do not run and match. One that cannot be removed is left out. */
  async prune(filter: PruneFilter): Promise<{ removed: string[]; reclaimedBytes: bigint; revision: bigint }> {
    const removed: string[] = [];
    let reclaimedBytes = 0n;
    let revision = 0n;
    for (const record of this.context.store.all()) {
      if (!isPrunable(record, filter)) continue;
      const { id } = record.container;
      try {
        const usage = await this.context.peers.images.layerUsage(id).catch(() => undefined);
        revision = await this.#remover.remove(id, { force: false, volumes: false, link: false, requestId: '' });
        removed.push(id);
        reclaimedBytes += usage?.sizeRwBytes ?? 0n;
      } catch (error) {
        this.context.log.warn({ containerId: id, err: error }, 'container not pruned');
      }
    }
    await this.context.store.commit((batch) => batch.emit(containersPruned(reclaimedBytes)));
    return { removed, reclaimedBytes, revision };
  }

  /** Begin nothing new and finish what is under way; containers run on. */
  async close(): Promise<void> {
    for (const end of this.#endWatching) end();
    this.#turns.close();
    await this.#ender.close();
  }

  /**
   * Stop what runs, because the engine stops: dependents first, each in its own time. Nothing is started any more. Policies start them again with
   * the engine, for no user has stopped them.
   *
   * @returns ids of those that ran.
   */
  async stopAll(timeoutSeconds: number): Promise<string[]> {
    this.#turns.close();
    this.#ender.holdRestarts();
    this.#starter.close();
    return stopAll(this.context, this.#stopper, timeoutSeconds);
  }

  /** With dockerd, a container with auto-remove does not outlive a failed start; one that a policy starts waits for a peer that is down. */
  async #startFailed(record: ContainerRecord, failure: StartFailure, cause: StartCause): Promise<void> {
    const { id, hostConfig } = record.container;
    if (hostConfig.autoRemove) {
      await this.#remover.removeLocked({
        ...record,
        internals: { ...record.internals, removal: { volumes: true, requestId: '' } },
      });
      return;
    }
    const isTransient = failure.error.kind === 'unavailable' || failure.error.kind === 'deadlineExceeded';
    if (!isTransient || cause.kind === 'user' || cause.kind === 'restart') return;
    const delayMs = Math.min(Math.max(record.internals.previousDelayMs * 2, 1000), 60_000);
    const waiting = withStatus(record, 'restarting');
    await this.context.store.commit((batch) =>
      batch.put({
        ...waiting,
        internals: {
          ...waiting.internals,
          previousDelayMs: delayMs,
          backOff: { delayMs, dueAtMs: Date.now() + delayMs },
        },
      }),
    );
    this.#ender.scheduleRestart(id, Date.now() + delayMs);
  }

  #requireTask(record: ContainerRecord): RuntimeTask {
    const task = this.context.tasks.get(record.container.id);
    if (task === undefined || !isLive(stateOf(record))) {
      throw conflict(`container ${record.container.id} is not running`);
    }
    return task;
  }

  #locked<T>(name: string, work: (record: ContainerRecord) => Promise<T>): Promise<T> {
    const { id } = this.context.store.resolve(name).container;
    return this.context.locks.run(id, () => {
      const record = this.context.store.get(id);
      if (record === undefined) throw notFound(`No such container: ${name}`);
      return work(record);
    });
  }
}

function withStatus(record: ContainerRecord, to: 'running' | 'paused' | 'restarting'): ContainerRecord {
  const status = toStatus(transition(stateOf(record), to));
  return { ...record, container: { ...record.container, state: { ...record.container.state, status } } };
}

function prefixErrors<T>(prefix: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    if (!isEngineError(error)) throw error;
    const make = error.kind === 'invalidArgument' ? invalidArgument : conflict;
    throw make(prefix + error.message, { cause: error });
  }
}

function isPrunable(record: ContainerRecord, filter: PruneFilter): boolean {
  if (!['created', 'exited', 'dead'].includes(stateOf(record))) return false;
  // What it holds may be all that is left: only somebody who names it may remove it.
  if (record.internals.quarantine?.reason !== undefined) return false;
  if (!filter.matchesLabels(record.container.config.labels)) return false;
  const { createdAt } = record.container;
  return (
    filter.until === undefined || createdAt === undefined || timestampToNs(createdAt) < timestampToNs(filter.until)
  );
}
