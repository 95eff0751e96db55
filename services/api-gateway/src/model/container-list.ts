import type { ApiVersion } from '@flotilla/docker-api';
import type { container } from '@flotilla/proto';
import { STATUS_MARK, containerSummary } from '../shapes/container.js';
import { isRunning, statusText } from '../shapes/container-state.js';
import type { ImageIndex } from './image-index.js';

const EMPTY_STATE: container.ContainerState = { status: 0, pid: 0, exitCode: 0, error: '', oomKilled: false };

/** Finished text before and after the status of a list entry. */
interface SplitText {
  readonly before: string;
  readonly after: string;
}

interface Sizes {
  readonly sizeRw: number;
  readonly sizeRootFs: number;
}

/** A finished list. */
interface ListBody {
  readonly body: Buffer;
  /** Milliseconds since the epoch at which a status text changes. */
  readonly until: number;
}

/** Container objects as `docker ps` sorts them: newest first. */
export const newestFirst = (a: container.Container, b: container.Container): number => {
  const seconds = (b.createdAt?.seconds ?? 0n) - (a.createdAt?.seconds ?? 0n);
  if (seconds !== 0n) return seconds > 0n ? 1 : -1;
  return (b.createdAt?.nanos ?? 0) - (a.createdAt?.nanos ?? 0);
};

/**
 * Renders lists of containers. An entry is rendered once per object and version class; only its status text is made
 * anew, because it tells how long ago something happened.
 */
export class ContainerListRenderer {
  readonly #images: ImageIndex;
  readonly #entries = new WeakMap<container.Container, Map<string, SplitText>>();

  constructor(images: ImageIndex) {
    this.#images = images;
  }

  /**
   * The JSON of a list.
   * @param sizes bytes by container id, when the client asked for them
   */
  render(
    objects: readonly container.Container[],
    version: ApiVersion,
    now: number,
    sizes?: ReadonlyMap<string, Sizes>,
  ): ListBody {
    let until = Number.POSITIVE_INFINITY;
    let json = '[';
    for (const object of objects) {
      const status = statusText(object.state ?? EMPTY_STATE, now);
      until = Math.min(until, status.until);
      const { before, after } = this.#entry(object, version);
      const size = sizes?.get(object.id);
      const sizeText = size === undefined ? '' : `,"SizeRw":${size.sizeRw},"SizeRootFs":${size.sizeRootFs}}`;
      json += `${json.length === 1 ? '' : ','}${before}${status.text}${size === undefined ? after : after.slice(0, -1) + sizeText}`;
    }
    return { body: Buffer.from(`${json}]\n`), until };
  }

  #entry(object: container.Container, version: ApiVersion): SplitText {
    const name = object.config?.image ?? '';
    const image = this.#images.standsFor(name, object.imageId) ? name : object.imageId;
    const key = `${containerSummary.classOf(version)} ${image}`;
    let texts = this.#entries.get(object);
    if (texts === undefined) this.#entries.set(object, (texts = new Map<string, SplitText>()));
    let text = texts.get(key);
    if (text === undefined) {
      const json = JSON.stringify(containerSummary.render({ object, image }, version));
      const mark = JSON.stringify(STATUS_MARK).slice(1, -1);
      const at = json.indexOf(mark);
      texts.set(key, (text = { before: json.slice(0, at), after: json.slice(at + mark.length) }));
    }
    return text;
  }
}

/** Finished lists of a whole set, kept until an object or a status text changes. */
export class ContainerListCache {
  readonly #renderer: ContainerListRenderer;
  readonly #lists = new Map<string, ListBody & { readonly generation: string }>();

  constructor(renderer: ContainerListRenderer) {
    this.#renderer = renderer;
  }

  /** @param generation names the state of everything that the list is made of */
  get(objects: Iterable<container.Container>, generation: string, all: boolean, version: ApiVersion): Buffer {
    const key = `${all ? 'all' : 'running'} ${containerSummary.classOf(version)}`;
    const now = Date.now();
    const kept = this.#lists.get(key);
    if (kept?.generation === generation && now < kept.until) return kept.body;
    const chosen = [...objects].filter((object) => all || isRunning(object.state?.status ?? 0)).sort(newestFirst);
    const made = this.#renderer.render(chosen, version, now);
    this.#lists.set(key, { ...made, generation });
    return made.body;
  }
}
