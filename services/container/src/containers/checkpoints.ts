import { mkdir, readdir, rename, rm } from 'node:fs/promises';
import { dirname, isAbsolute, join } from 'node:path';
import { alreadyExists, conflict, invalidArgument, notFound, unimplemented } from '@flotilla/errors';
import { hasCode, pathExists } from '@flotilla/sys';
import { type ContainerRecord, stateOf } from '../store/container-record.js';
import type { ContainerContext } from './context.js';
import { requireCriu } from './criu-check.js';
import { containerDir } from './settings.js';

/** Containers written down by criu, one directory each. */
export class Checkpoints {
  readonly #context: ContainerContext;

  constructor(context: ContainerContext) {
    this.#context = context;
  }

  /**
   * Write a running container down.
   *
   * @throws EngineError `invalidArgument` for a bad name; `conflict` unless it runs; `alreadyExists`; `unimplemented` where criu cannot work.
   */
  async create(name: string, checkpoint: string, directory: string, exit: boolean): Promise<void> {
    const { id } = this.#context.store.resolve(name).container;
    await this.#context.locks.run(id, async () => {
      const record = this.#context.store.get(id);
      const task = this.#context.tasks.get(id);
      if (record === undefined) throw notFound(`No such container: ${name}`);
      const path = this.#pathOf(record, checkpoint, directory);
      if (stateOf(record) !== 'running' || task === undefined) throw conflict(`Container ${name} not running`);
      refuseUserNamespace(record);
      if (record.container.config.tty) throw invalidArgument('checkpoint not support on containers with tty');
      if (await pathExists(path)) {
        throw alreadyExists(`checkpoint with name ${checkpoint} already exists for container ${name}`);
      }
      await requireCriu();
      // What has the name is complete: a crash leaves a hidden directory, which the next try replaces.
      const unfinished = join(dirname(path), `.${checkpoint}`);
      await rm(unfinished, { recursive: true, force: true });
      await mkdir(unfinished, { recursive: true, mode: 0o700 });
      try {
        await task.checkpoint(unfinished, exit);
        await rename(unfinished, path);
      } catch (error) {
        await rm(unfinished, { recursive: true, force: true });
        throw error;
      }
    });
  }

  /** Names, sorted. */
  async list(name: string, directory: string): Promise<string[]> {
    const root = this.#rootOf(this.#context.store.resolve(name), directory);
    try {
      const entries = await readdir(root, { withFileTypes: true });
      return entries
        .flatMap((entry) => (entry.isDirectory() && !entry.name.startsWith('.') ? [entry.name] : []))
        .sort();
    } catch (error) {
      if (hasCode(error, 'ENOENT')) return [];
      throw error;
    }
  }

  /** @throws EngineError `notFound`; `invalidArgument` for a bad name. */
  async delete(name: string, checkpoint: string, directory: string): Promise<void> {
    const record = this.#context.store.resolve(name);
    const path = this.#pathOf(record, checkpoint, directory);
    if (!(await pathExists(path))) throw notFound(`checkpoint ${checkpoint} does not exist for container ${name}`);
    await rm(path, { recursive: true });
  }

  /**
   * Directory of a checkpoint that a start is to bring back.
   *
   * @throws EngineError as `delete`; `unimplemented` where criu cannot work.
   */
  async find(name: string, checkpoint: string, directory: string): Promise<string> {
    const record = this.#context.store.resolve(name);
    const path = this.#pathOf(record, checkpoint, directory);
    if (!(await pathExists(path))) throw notFound(`checkpoint ${checkpoint} does not exist for container ${name}`);
    refuseUserNamespace(record);
    await requireCriu();
    return path;
  }

  #pathOf(record: ContainerRecord, checkpoint: string, directory: string): string {
    if (!/^[a-zA-Z0-9][a-zA-Z0-9_.-]+$/.test(checkpoint)) {
      throw invalidArgument(`Invalid checkpoint ID (${checkpoint}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed`);
    }
    return join(this.#rootOf(record, directory), checkpoint);
  }

  #rootOf({ container }: ContainerRecord, directory: string): string {
    if (directory === '') return join(containerDir(this.#context.settings, container.id), 'checkpoints');
    if (!isAbsolute(directory)) throw invalidArgument(`checkpoint directory ${directory} must be an absolute path`);
    return directory;
  }
}

function refuseUserNamespace({ internals }: ContainerRecord): void {
  if ((internals.userNamespace ?? null) === null) return;
  throw unimplemented(
    'checkpoints of containers in a user namespace are not supported: run the container with --userns=host',
  );
}
