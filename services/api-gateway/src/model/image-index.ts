import { notFound } from '@flotilla/errors';
import { familiarString, parseAnyReference, withDefaultTag, withDigest } from '@flotilla/oci';
import type { Reference } from '@flotilla/oci';
import type { image } from '@flotilla/proto';
import type { WatchedSet } from './watched-set.js';

const SHORT_ID = /^(?:sha256:)?([0-9a-f]{1,64})$/;

/** Finds images by everything a user may call them: name with or without tag, digest, id, prefix of an id. */
export class ImageIndex {
  readonly #images: WatchedSet<image.Image>;
  readonly #byName = new Map<string, string>();
  /** Names with images of several platforms. */
  readonly #others = new Map<string, Set<string>>();
  readonly #familiar = new Map<string, string | undefined>();
  #generation = -1;

  constructor(images: WatchedSet<image.Image>) {
    this.#images = images;
  }

  /**
   * The image of a name.
   * @throws EngineError `notFound` in Docker's words; `invalidArgument` for what can be no name
   */
  resolve(wanted: string): image.Image {
    const { objects } = this.#images;
    const reference = parseAnyReference(wanted);
    if (reference.kind === 'id') {
      const found = objects.get(reference.id);
      if (found === undefined) throw notFound(`No such image: ${reference.id}`);
      return found;
    }
    const byName = objects.get(this.#names().get(storedName(reference.reference)) ?? '');
    if (byName !== undefined) return byName;
    const prefix = SHORT_ID.exec(wanted)?.[1];
    if (prefix !== undefined) {
      const found = [...objects.values()].filter(({ id }) => id.startsWith(`sha256:${prefix}`));
      if (found.length === 1 && found[0] !== undefined) return found[0];
    }
    throw notFound(`No such image: ${familiarString(withDefaultTag(reference.reference))}`);
  }

  /** The same, or undefined. */
  find(wanted: string): image.Image | undefined {
    try {
      return this.resolve(wanted);
    } catch {
      return undefined;
    }
  }

  /** Whether a name still stands for an image id: what a list of containers shows depends on it. */
  standsFor(name: string, id: string): boolean {
    if (name === id) return true;
    if (!this.#familiar.has(name)) this.#familiar.set(name, this.#familiarName(name));
    const familiar = this.#familiar.get(name);
    if (
      familiar !== undefined &&
      (this.#names().get(familiar) === id || this.#others.get(familiar)?.has(id) === true)
    ) {
      return true;
    }
    const prefix = SHORT_ID.exec(name)?.[1];
    return prefix !== undefined && id.startsWith(`sha256:${prefix}`);
  }

  #familiarName(name: string): string | undefined {
    try {
      const reference = parseAnyReference(name);
      return reference.kind === 'id' ? undefined : storedName(reference.reference);
    } catch {
      return undefined;
    }
  }

  #names(): ReadonlyMap<string, string> {
    if (this.#generation !== this.#images.generation) {
      this.#generation = this.#images.generation;
      this.#byName.clear();
      this.#others.clear();
      this.#familiar.clear();
      for (const { id, repoTags, repoDigests, secondaryNames } of this.#images.objects.values()) {
        for (const name of [...repoTags, ...repoDigests]) {
          if (!secondaryNames.includes(name)) this.#byName.set(name, id);
          else this.#others.set(name, (this.#others.get(name) ?? new Set()).add(id));
        }
      }
    }
    return this.#byName;
  }
}

/** As images list it: `name:tag@digest` is what `name@digest` is. */
function storedName(reference: Reference): string {
  const { digest } = reference;
  return familiarString(digest === undefined ? withDefaultTag(reference) : withDigest(reference, digest));
}
