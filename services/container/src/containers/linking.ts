import { readFile, writeFile } from 'node:fs/promises';
import { messageOf, notFound } from '@flotilla/errors';
import { container } from '@flotilla/proto';
import { etcFilesIn, withAddress, withoutName } from '../rootfs/etc-files.js';
import { type ContainerRecord, type ShownContainer, stateOf } from '../store/container-record.js';
import type { ContainerContext } from './context.js';
import type { Link } from './link-plan.js';
import { bridgeAddress, shownLinks } from './links.js';
import { containerDir } from './settings.js';
import { isLive } from './state.js';

/** Keeps what containers show of their links true while the others come and go. */
export class Linking {
  readonly #context: ContainerContext;

  constructor(context: ContainerContext) {
    this.#context = context;
  }

  /** Tell running containers the address of one that has just started. Called while its lock is held, which theirs come after. */
  async started(other: ShownContainer): Promise<void> {
    const address = bridgeAddress(other);
    if (address === undefined) return;
    await this.#ofParents(other.id, async (parent, links) => {
      if (!isLive(stateOf(parent))) return;
      for (const { alias } of links) await this.#editHosts(parent, (text) => withAddress(text, alias, address));
    });
  }

  /** A container has another name, or is gone: those that are linked to it show it. */
  async changed(id: string): Promise<void> {
    await this.#ofParents(id, (parent) => this.#commit(parent, parent.internals.links ?? []));
  }

  /** What a crash kept from being brought up to date. */
  async recover(): Promise<void> {
    const { store } = this.#context;
    for (const { container: shown, internals } of store.all()) {
      const links = internals.links ?? [];
      const isTrue = shownLinks(store, shown.name, links).join() === shown.hostConfig.links.join();
      const [first] = links;
      if (first !== undefined && !isTrue) await this.changed(first.id);
    }
  }

  /**
   * Remove a link, by `parent/alias`.
   *
   * @throws EngineError `notFound`
   */
  async unlink(path: string, requestId: string): Promise<bigint> {
    const { store, locks } = this.#context;
    const [, name = '', alias = ''] = /^\/?([^/]+)\/([^/]+)$/.exec(path) ?? [];
    const missing = (): Error => notFound(`No such container: ${path}`);
    const parent = store.all().find((record) => record.container.name === name);
    if (parent === undefined) throw missing();
    return locks.run(parent.container.id, async () => {
      const current = store.get(parent.container.id);
      const links = current?.internals.links ?? [];
      const left = links.filter((link) => link.alias !== alias);
      if (current === undefined || left.length === links.length) throw missing();
      const revision = await this.#commit(current, left, requestId);
      if (isLive(stateOf(current))) await this.#editHosts(current, (text) => withoutName(text, alias));
      return revision;
    });
  }

  #commit(parent: ContainerRecord, links: readonly Link[], requestId = ''): Promise<bigint> {
    const { store } = this.#context;
    const left = links.filter(({ id }) => store.get(id) !== undefined);
    const shown = shownLinks(store, parent.container.name, left);
    return store.commit((batch) => {
      batch.put({
        container: { ...parent.container, hostConfig: { ...parent.container.hostConfig, links: shown } },
        internals: { ...parent.internals, links: left },
      });
      batch.reply(requestId, container.RemoveContainerResponse.encode({ revision: batch.revision }).finish());
    });
  }

  /** Links begin at the younger container, so that these locks are taken in one order. */
  async #ofParents(id: string, work: (parent: ContainerRecord, links: Link[]) => Promise<unknown>): Promise<void> {
    const { store, locks, log } = this.#context;
    const parents = store.all().filter(({ internals }) => internals.links?.some((link) => link.id === id) === true);
    for (const { container: shown } of parents) {
      try {
        await locks.run(shown.id, async () => {
          const current = store.get(shown.id);
          const links = (current?.internals.links ?? []).filter((link) => link.id === id);
          if (current !== undefined && links.length > 0) await work(current, links);
        });
      } catch (error) {
        log.warn({ containerId: shown.id, reason: messageOf(error) }, 'links not brought up to date');
      }
    }
  }

  async #editHosts({ container: shown }: ContainerRecord, edit: (text: string) => string): Promise<void> {
    const { hosts } = etcFilesIn(containerDir(this.#context.settings, shown.id));
    const text = await readFile(hosts, 'utf8');
    const edited = edit(text);
    // In place: a new inode would not be seen.
    if (edited !== text) await writeFile(hosts, edited);
  }
}
