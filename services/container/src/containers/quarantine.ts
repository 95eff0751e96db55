import { statSync } from 'node:fs';
import { hasCode } from '@flotilla/sys';
import { type ContainerRecord, stateOf, toStatus } from '../store/container-record.js';
import type { ContainerContext } from './context.js';
import { isLive, transition } from './state.js';

/** More are only counted: the sentence is for a terminal. */
const namedAtMost = 10;

/**
 * Containers that cannot be used because of something outside of them: a record that cannot be read, a layer that is gone, work at the start of the
 * service that fails. They are shown as dead with the reason, hold what they held, and can be removed. None keeps the engine from starting.
 */
export class Quarantine {
  readonly #context: ContainerContext;

  constructor(context: ContainerContext) {
    this.#context = context;
  }

  /** Put a container that does not run into quarantine, or let it out when what it missed is there again. Its lock is held, or nobody is served yet. */
  async review(record: ContainerRecord): Promise<ContainerRecord> {
    const { quarantine } = record.internals;
    const state = stateOf(record);
    if (state === 'dead' && quarantine?.returnsTo !== undefined && record.internals.removal === null) {
      const missing = this.#missingOf(record);
      if (missing === undefined) return this.#release(record, quarantine.returnsTo);
      return record;
    }
    if (isLive(state) || ['dead', 'removing', 'creating'].includes(state) || record.internals.removal !== null) {
      return record;
    }
    const missing = this.#missingOf(record);
    return missing === undefined ? record : this.admit(record, missing);
  }

  /** @param reason a sentence for the user */
  async admit(record: ContainerRecord, reason: string): Promise<ContainerRecord> {
    const state = stateOf(record);
    const { container: shown, internals } = record;
    this.#context.log.error({ containerId: shown.id, name: shown.name, reason }, 'container is in quarantine');
    const returnsTo = state === 'created' ? 'created' : 'exited';
    return this.#put({
      container: {
        ...shown,
        state: { ...shown.state, status: toStatus(transition(state, 'dead')), pid: 0, error: reason },
      },
      internals: {
        ...internals,
        backOff: null,
        restartRequestId: null,
        // Nobody has ever seen it: all there is to do is to take it away.
        ...(state === 'creating' ? { removal: { volumes: true, requestId: '' } } : {}),
        quarantine: { reason, returnsTo },
      },
    });
  }

  /** For `docker info` and `flotilla status`. */
  warnings(): string[] {
    const held = this.#context.store.all().flatMap(({ container, internals: { quarantine } }) => {
      if (quarantine === undefined || quarantine === null) return [];
      return [`container ${container.name} (${container.id.slice(0, 12)}) is in quarantine: ${quarantine.reason}`];
    });
    const more = held.length - namedAtMost;
    return more <= 0 ? held : [...held.slice(0, namedAtMost), `${more} more containers are in quarantine`];
  }

  async #release(record: ContainerRecord, to: 'created' | 'exited'): Promise<ContainerRecord> {
    const { container: shown, internals } = record;
    this.#context.log.info({ containerId: shown.id, name: shown.name }, 'container is whole again');
    const status = toStatus(transition('dead', to));
    return this.#put({
      container: { ...shown, state: { ...shown.state, status, error: '' } },
      internals: { ...internals, quarantine: null },
    });
  }

  async #put(next: Pick<ContainerRecord, 'container' | 'internals'>): Promise<ContainerRecord> {
    const { store } = this.#context;
    await store.commit((batch) => batch.put(next));
    return store.get(next.container.id) ?? { ...next, revision: store.revision };
  }

  /** What a start of the container would not find. A question that cannot be answered is left to the start. */
  #missingOf({ container: shown, internals }: ContainerRecord): string | undefined {
    const mounted = internals.mounts.flatMap((mount) => (mount.type === 'image' ? (mount.leased?.lower ?? []) : []));
    const directories = [shown.upperDir, ...shown.lowerDirs, ...mounted].filter((path) => path !== '');
    const first = directories.find(isMissing);
    if (first === undefined) return undefined;
    if (mounted.includes(first)) return `a layer of an image that it mounts is gone: ${first}`;
    return first === shown.upperDir
      ? `its writable layer is gone: ${first} (\`flotilla doctor images --repair\` gives it an empty one)`
      : `a layer of its image is gone: ${first} (\`flotilla doctor images --repair\` unpacks it again)`;
  }
}

/** Synchronous: of hundreds of containers at the start of the service, this is several times quicker. */
function isMissing(path: string): boolean {
  try {
    return statSync(path, { throwIfNoEntry: false })?.isDirectory() !== true;
  } catch (error) {
    return hasCode(error, 'ENOTDIR');
  }
}
