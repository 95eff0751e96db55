import { randomUUID } from 'node:crypto';
import { conflict, messageOf, notFound } from '@flotilla/errors';
import { container, image } from '@flotilla/proto';
import { type ContainerRecord, stateOf, toStatus } from '../store/container-record.js';
import type { ContainerContext } from './context.js';
import { containerCommitted, containerPaused, containerUnpaused } from './events.js';
import { transition } from './state.js';

/** Makes images of containers. */
export class Committer {
  readonly #context: ContainerContext;

  constructor(context: ContainerContext) {
    this.#context = context;
  }

  /**
   * Freeze the container if asked to and it runs, let the image service read it, let it go. It is let go whatever comes,
   * also after a crash of this service: the freeze is written down before it is made.
   *
   * @throws EngineError `notFound`; `conflict` while it is being removed; what the image service fails with.
   */
  async commit(
    request: container.CommitContainerRequest,
    requestId: string,
    signal: AbortSignal,
  ): Promise<container.CommitContainerResponse> {
    const { store, peers } = this.#context;
    const record = store.resolve(request.name);
    const { id } = record.container;
    refuseRemoved(record, 'commit');
    const freeze = request.pause ? await this.#freeze(id) : undefined;
    try {
      const { imageId, revision, reference } = await peers.images.commit(
        {
          containerId: id,
          repository: request.repository,
          tag: request.tag,
          comment: request.comment,
          author: request.author,
          changes: request.changes,
          config: request.config === undefined ? undefined : imageConfigOf(request.config),
          containerConfig: imageConfigOf(record.container.config),
        },
        requestId,
        signal,
      );
      const response = { imageId, imageRevision: revision };
      await store.commit((batch) => {
        const shown = store.get(id)?.container ?? record.container;
        batch.emit(containerCommitted(shown, { comment: request.comment, imageId, imageRef: reference }));
        batch.reply(requestId, container.CommitContainerResponse.encode(response).finish());
      });
      return response;
    } finally {
      if (freeze !== undefined) await this.thaw(id, freeze);
    }
  }

  /** @returns the mark of the freeze; undefined when the container does not run. */
  async #freeze(id: string): Promise<string | undefined> {
    const { locks, store, tasks } = this.#context;
    return locks.run(id, async () => {
      const record = store.get(id);
      const task = tasks.get(id);
      if (record === undefined || stateOf(record) !== 'running' || task === undefined) return undefined;
      const mark = randomUUID();
      const internals = { ...record.internals, commitFreeze: mark };
      await store.commit((batch) => batch.put({ container: record.container, internals }));
      try {
        await task.pause();
      } catch (error) {
        // It has just ended, or cannot be frozen: dockerd commits all the same.
        this.#context.log.info({ containerId: id, reason: messageOf(error) }, 'container not frozen for its commit');
        await store.commit((batch) => batch.put(withoutFreeze(record)));
        return undefined;
      }
      const shown = withStatus(record, 'paused');
      await store.commit((batch) => {
        batch.put({ container: shown, internals });
        batch.emit(containerPaused(shown));
      });
      return mark;
    });
  }

  /** Undo a freeze of this class; one that has ended otherwise (unpause, stop, the end of the container) is left alone. */
  async thaw(id: string, mark: string): Promise<void> {
    const { locks, store, tasks, log } = this.#context;
    await locks.run(id, async () => {
      const record = store.get(id);
      if (record === undefined || record.internals.commitFreeze !== mark) return;
      const task = tasks.get(id);
      if (stateOf(record) !== 'paused' || task === undefined) {
        await store.commit((batch) => batch.put(withoutFreeze(record)));
        return;
      }
      try {
        await task.resume();
      } catch (error) {
        // It has just ended; or it is frozen still, and shown so: whoever unpauses it tries again.
        log.warn({ containerId: id, reason: messageOf(error) }, 'container not thawed after its commit');
        await store.commit((batch) => batch.put(withoutFreeze(record)));
        return;
      }
      const shown = withStatus(record, 'running');
      await store.commit((batch) => {
        batch.put({ ...withoutFreeze(record), container: shown });
        batch.emit(containerUnpaused(shown));
      });
    });
  }
}

/** @throws EngineError `conflict` in dockerd's words. */
export function refuseRemoved(record: ContainerRecord, verb: 'commit' | 'export'): void {
  const { id } = record.container;
  const state = stateOf(record);
  if (state === 'dead') throw conflict(`You cannot ${verb} container ${id} which is Dead`);
  if (state === 'removing') throw conflict(`You cannot ${verb} container ${id} which is being removed`);
  if (state === 'creating') throw notFound(`No such container: ${id}`);
}

function withStatus({ container: shown }: ContainerRecord, to: 'running' | 'paused'): ContainerRecord['container'] {
  const status = toStatus(transition(stateOf({ container: shown }), to));
  return { ...shown, state: { ...shown.state, status } };
}

function withoutFreeze(record: ContainerRecord): Pick<ContainerRecord, 'container' | 'internals'> {
  return { container: record.container, internals: { ...record.internals, commitFreeze: null } };
}

function imageConfigOf(config: container.ContainerConfig): image.ImageConfig {
  return {
    user: config.user,
    exposedPorts: config.exposedPorts,
    env: config.env,
    entrypoint: config.entrypoint,
    cmd: config.cmd,
    volumes: config.volumes,
    workingDir: config.workingDir,
    labels: config.labels,
    stopSignal: config.stopSignal,
    shell: config.shell,
    healthcheck: config.healthcheck,
    onBuild: config.onBuild,
    argsEscaped: config.argsEscaped,
    hasEntrypoint: config.hasEntrypoint,
    hasCmd: config.hasCmd,
  };
}
