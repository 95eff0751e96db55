import { rm } from 'node:fs/promises';
import { conflict, internal, invalidArgument, isEngineError, messageOf } from '@flotilla/errors';
import { container } from '@flotilla/proto';
import { type ContainerRecord, stateOf, toStatus } from '../store/container-record.js';
import type { ContainerContext } from './context.js';
import { containerDestroyed } from './events.js';
import { endCopies, hasBundle, hasVolumes, releaseRun } from './release.js';
import { containerDir } from './settings.js';
import { isLive, transition } from './state.js';
import { endOfBackOff, type Stopper } from './stopper.js';

export interface RemoveOptions {
  force: boolean;
  /** Anonymous volumes too. */
  volumes: boolean;
  link: boolean;
  requestId: string;
}

/** The removal saga: its options are recorded first, every step may be repeated, and a crash of anyone only delays it. */
export class Remover {
  readonly #context: ContainerContext;
  readonly #stopper: Stopper;
  readonly #cancelBackOff: (id: string) => void;
  readonly #gone: (id: string) => Promise<void>;
  /** What is being removed just now; a removal that broke off can be asked for again. */
  readonly #underWay = new Set<string>();

  /** @param gone is told of each container that is removed. */
  constructor(
    context: ContainerContext,
    stopper: Stopper,
    cancelBackOff: (id: string) => void,
    gone: (id: string) => Promise<void>,
  ) {
    this.#context = context;
    this.#stopper = stopper;
    this.#cancelBackOff = cancelBackOff;
    this.#gone = gone;
  }

  /**
   * Remove a container.
   *
   * @throws EngineError `notFound`; `conflict` while it runs (without force) or is being removed.
   */
  async remove(name: string, options: RemoveOptions): Promise<bigint> {
    const record = this.#context.store.resolve(name);
    if (options.link) throw invalidArgument('Conflict, cannot remove the default link name of the container');
    const { id } = record.container;
    // A request that is repeated after a crash finds its removal under way.
    const begun = record.internals.removal;
    if (
      stateOf(record) === 'removing' &&
      this.#underWay.has(id) &&
      begun !== null &&
      begun.requestId !== '' &&
      begun.requestId === options.requestId
    ) {
      return this.#awaitRemoval(id);
    }
    this.#refuse(record, name, options.force);
    const removal = { volumes: options.volumes, requestId: options.requestId };
    // Before the lock, which may be held by what waits for them.
    await this.#context.rootfsUses.endAll(id, `container ${id} is being removed`);
    if (await this.#stopper.killForRemoval(id, removal)) {
      return this.#awaitRemoval(id);
    }
    return this.#context.locks.run(id, async () => {
      const current = this.#context.store.get(id);
      if (current === undefined) return this.#context.store.revision;
      this.#refuse(current, name, options.force);
      this.#cancelBackOff(id);
      return this.removeLocked({ ...current, internals: { ...current.internals, removal } });
    });
  }

  /**
   * Do what `internals.removal` says; the container does not run and its lock is held.
   *
   * @throws whatever a step ran into; the container is `dead` then, and may be removed again.
   */
  async removeLocked(record: ContainerRecord): Promise<bigint> {
    const { id } = record.container;
    this.#underWay.add(id);
    try {
      return await this.#remove(record);
    } finally {
      this.#underWay.delete(id);
    }
  }

  async #remove(record: ContainerRecord): Promise<bigint> {
    const { store, runtime } = this.#context;
    const { id } = record.container;
    const removing = await this.#recordRemoving(record);
    try {
      await endCopies(this.#context, removing);
      await releaseIfMade(this.#context, removing);
      await Promise.all([
        this.#context.peers.images.releaseLayer(id),
        hasVolumes(removing)
          ? this.#context.peers.volumes.releaseAll(id, removing.internals.removal?.volumes ?? false)
          : undefined,
      ]);
      await rm(containerDir(this.#context.settings, id), { recursive: true, force: true });
    } catch (error) {
      await this.#recordDead(removing, messageOf(error));
      throw isEngineError(error)
        ? error
        : internal(`unable to remove container ${id}: ${messageOf(error)}`, { cause: error });
    }
    runtime.forgetStreams(id);
    const { state } = removing.container;
    const removed = await store.commit((batch) => {
      batch.remove(id, {
        exitCode: state.exitCode,
        exitSequence: removing.internals.exitSequence,
        error: '',
        removedAtMs: Date.now(),
      });
      batch.emit(containerDestroyed(removing.container));
      const payload = container.RemoveContainerResponse.encode({ revision: batch.revision }).finish();
      batch.reply(removing.internals.removal?.requestId ?? '', payload);
    });
    await this.#gone(id);
    return removed;
  }

  #refuse(record: ContainerRecord, name: string, force: boolean): void {
    const state = stateOf(record);
    const shown = `"/${record.container.name}"`;
    if (state === 'removing' && this.#underWay.has(record.container.id))
      throw conflict(`removal of container ${name} is already in progress`);
    if (force) return;
    if (state === 'paused')
      throw conflict(`cannot remove container ${shown}: container is paused and must be unpaused first`);
    if (isLive(state) || state === 'restarting') {
      throw conflict(
        `cannot remove container ${shown}: container is ${state}: stop the container before removing or force remove`,
      );
    }
  }

  async #awaitRemoval(id: string): Promise<bigint> {
    const { store, watchpoints } = this.#context;
    const failure = await watchpoints.until(id, (now) => {
      if (now === undefined) return { reason: undefined };
      return stateOf(now) === 'dead' ? { reason: now.container.state.error } : undefined;
    });
    if (failure.reason !== undefined) throw internal(failure.reason);
    return store.revision;
  }

  async #recordRemoving(record: ContainerRecord): Promise<ContainerRecord> {
    const state = stateOf(record);
    const settled = state === 'restarting' ? { ...record, ...endOfBackOff(record) } : record;
    const status =
      state === 'removing' ? record.container.state.status : toStatus(transition(stateOf(settled), 'removing'));
    const removing = {
      container: { ...settled.container, state: { ...settled.container.state, status } },
      internals: { ...settled.internals, removal: settled.internals.removal ?? { volumes: false, requestId: '' } },
    };
    await this.#context.store.commit((batch) => batch.put(removing));
    return { ...removing, revision: this.#context.store.revision };
  }

  async #recordDead(record: ContainerRecord, reason: string): Promise<void> {
    this.#context.log.warn({ containerId: record.container.id, reason }, 'container could not be removed');
    await this.#context.store.commit((batch) =>
      batch.put({
        container: {
          ...record.container,
          state: { ...record.container.state, status: toStatus(transition('removing', 'dead')), error: reason },
        },
        internals: record.internals,
      }),
    );
  }
}

/** Release a run only when something of it may be left: the directory of the bundle says so. */
async function releaseIfMade(context: ContainerContext, record: ContainerRecord): Promise<void> {
  if (await hasBundle(context, record.container.id)) await releaseRun(context, record, 'unknown');
}
