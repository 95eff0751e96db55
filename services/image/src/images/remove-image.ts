import { conflict } from '@flotilla/errors';
import type { EngineError } from '@flotilla/errors';
import {
  canonicalString,
  familiarString,
  parseReference,
  repositoryName,
  shortId,
  withDefaultTag,
} from '@flotilla/oci';
import type { Digest, Platform, Reference } from '@flotilla/oci';
import type { EngineEvent } from '@flotilla/store';
import type { Catalog, CatalogImage, NamedImages } from '../catalog/catalog.js';
import type { LeaseRecord } from '../catalog/records.js';
import { imageDeleted, imageUntagged } from './image-events.js';

/** What a removal will do: computed without any effect, then committed at once. */
export interface RemovalPlan {
  readonly removed: { readonly kind: 'untagged' | 'deleted'; readonly what: string }[];
  readonly unname: readonly Reference[];
  /** Names that go on standing for other platforms' images. */
  readonly name: readonly NamedImages[];
  readonly removeImages: Digest[];
  readonly events: EngineEvent[];
}

export interface RemovalOptions {
  readonly force: boolean;
  /** Leave parents that lose their last child. */
  readonly noPrune: boolean;
  /** Containers that run now: their image cannot be removed even by force. */
  readonly running: ReadonlySet<string>;
  /** Only the images of these platforms, of several under the name; all of them when empty. */
  readonly platforms: readonly Platform[];
}

/**
 * Docker's rules for `rmi` (moby daemon/images/image_delete.go).
 *
 * @throws EngineError `notFound`, or `conflict` with Docker's phrases.
 */
export function planRemoval(catalog: Catalog, nameOrId: string, options: RemovalOptions): RemovalPlan {
  return new Removal(catalog, options).plan(nameOrId);
}

/** Removal of an image that no container uses, with all its names; undefined if something was made from it. */
export function planPrune(catalog: Catalog, id: Digest): RemovalPlan | undefined {
  const plan = new Removal(catalog, {
    force: true,
    noPrune: false,
    running: new Set(),
    platforms: [],
  }).prune(id);
  return plan.removed.length === 0 ? undefined : plan;
}

class Removal {
  readonly #catalog: Catalog;
  readonly #options: RemovalOptions;
  readonly #removed: RemovalPlan['removed'][number][] = [];
  readonly #removeImages: Digest[] = [];
  readonly #events: EngineEvent[] = [];
  /** Names by their canonical form, with the images that they no longer stand for. */
  readonly #untagged = new Map<string, { reference: Reference; imageIds: Set<Digest> }>();

  constructor(catalog: Catalog, options: RemovalOptions) {
    this.#catalog = catalog;
    this.#options = options;
  }

  plan(nameOrId: string): RemovalPlan {
    const { platforms } = this.#options;
    const all = this.#catalog.resolveAll(nameOrId);
    const wanted = platforms.map((platform) => this.#catalog.resolve(nameOrId, platform).record.id);
    const images = platforms.length === 0 ? all : all.filter(({ record }) => wanted.includes(record.id));
    const [first] = images;
    if (first !== undefined && isIdPrefix(first.record.id, nameOrId)) {
      this.#untagById(first);
      this.#delete(first.record.id, false);
    } else {
      this.#untagByName(images, nameOrId);
      for (const { record, references } of images) {
        if (this.#left(record.id, references).length === 0) this.#delete(record.id, true);
      }
    }
    return this.#finish();
  }

  prune(id: Digest): RemovalPlan {
    if (this.#catalog.childrenOf(id).length === 0) this.#delete(id, true);
    return this.#finish();
  }

  #finish(): RemovalPlan {
    const changed = [...this.#untagged.values()].map(({ reference, imageIds }) => ({
      reference,
      rest: this.#catalog.imagesNamed(reference).filter((id) => !imageIds.has(id)),
    }));
    return {
      removed: this.#removed,
      unname: changed.filter(({ rest }) => rest.length === 0).map(({ reference }) => reference),
      name: changed.flatMap(({ reference, rest }) => {
        const imageId = rest.at(-1);
        return imageId === undefined ? [] : [{ reference, imageId, siblings: rest }];
      }),
      removeImages: this.#removeImages,
      events: this.#events,
    };
  }

  #untagByName(images: readonly CatalogImage[], name: string): void {
    for (const { references, leases, record } of images) {
      const user = leases[0];
      if (this.#options.force || !isSingleReference(references) || user === undefined) continue;
      throw conflict(
        `conflict: unable to remove repository reference "${name}" (must force) - container ${shortId(user.containerId)} is using its referenced image ${shortId(record.id)}`,
      );
    }
    const parsed = withDefaultTag(parseReference(name));
    const known = images.flatMap(({ references }) => references);
    const reference = known.find((it) => canonicalString(it) === canonicalString(parsed)) ?? {
      domain: parsed.domain,
      path: parsed.path,
      ...(parsed.digest === undefined ? {} : { digest: parsed.digest }),
    };
    this.#untag(images, reference);
    if (reference.digest !== undefined) return;
    // The last tag of a repository takes its digests along.
    for (const image of images) {
      const rest = this.#left(image.record.id, image.references);
      const sameRepository = rest.filter((it) => repositoryName(it) === repositoryName(reference));
      if (sameRepository.some(({ digest }) => digest === undefined)) continue;
      for (const digest of sameRepository) this.#untag([image], digest, false);
    }
  }

  #untagById(image: CatalogImage): void {
    if (!isSingleReference(image.references)) return;
    const problem = this.#conflictOf(image, { soft: !this.#options.force, references: false });
    if (problem !== undefined) throw problem.error;
    for (const reference of image.references) this.#untag([image], reference);
  }

  /** One name is told once, however many images it stood for. */
  #untag(images: readonly CatalogImage[], reference: Reference, withEvent = true): void {
    const key = canonicalString(reference);
    const untagged = this.#untagged.get(key) ?? { reference, imageIds: new Set() };
    if (!this.#untagged.has(key)) this.#removed.push({ kind: 'untagged', what: familiarString(reference) });
    this.#untagged.set(key, untagged);
    for (const { record, config } of images) {
      untagged.imageIds.add(record.id);
      if (withEvent) this.#events.push(imageUntagged(record.id, config));
    }
  }

  #delete(id: Digest, quiet: boolean, force = this.#options.force): void {
    const image = this.#catalog.get(id);
    if (image === undefined) return;
    const problem = this.#conflictOf(image, { soft: !force, references: true });
    if (problem !== undefined) {
      if (quiet && (this.#left(image.record.id, image.references).length > 0 || problem.isNeeded)) return;
      throw problem.error;
    }
    for (const reference of this.#left(id, image.references)) this.#untag([image], reference);
    this.#removeImages.push(id);
    this.#events.push(imageDeleted(id, image.config));
    this.#removed.push({ kind: 'deleted', what: id });
    const { parent } = image.record;
    if (!this.#options.noPrune && parent !== '') this.#delete(parent, true, false);
  }

  #conflictOf(
    image: CatalogImage,
    checks: { soft: boolean; references: boolean },
  ): { error: EngineError; isNeeded: boolean } | undefined {
    const { id } = image.record;
    // By a container or a child: then taking the name was all there was to do.
    const refuse = (how: 'cannot be forced' | 'must be forced', why: string, isNeeded = true) => ({
      error: conflict(`conflict: unable to delete ${shortId(id)} (${how}) - ${why}`),
      isNeeded,
    });
    const gone = new Set<string>(this.#removeImages);
    if (this.#catalog.childrenOf(id).some((child) => !gone.has(child))) {
      return refuse('cannot be forced', 'image has dependent child images');
    }
    const isRunning = ({ containerId }: LeaseRecord): boolean => this.#options.running.has(containerId);
    const runner = image.leases.find(isRunning);
    if (runner !== undefined) {
      const why = `image is being used by running container ${shortId(runner.containerId)}`;
      return refuse('cannot be forced', why);
    }
    if (!checks.soft) return undefined;
    if (checks.references && this.#left(image.record.id, image.references).length > 0) {
      return refuse('must be forced', 'image is referenced in multiple repositories', false);
    }
    const stopped = image.leases[0];
    if (stopped === undefined) return undefined;
    return refuse('must be forced', `image is being used by stopped container ${shortId(stopped.containerId)}`);
  }

  /** The names that still stand for the image. */
  #left(id: Digest, references: readonly Reference[]): Reference[] {
    return references.filter((reference) => this.#untagged.get(canonicalString(reference))?.imageIds.has(id) !== true);
  }
}

/** One tag at most, and digests of the same repository only. */
function isSingleReference(references: readonly Reference[]): boolean {
  if (references.length <= 1) return true;
  const tags = references.filter(({ digest }) => digest === undefined);
  const repositories = new Set(references.map(repositoryName));
  return tags.length <= 1 && repositories.size === 1;
}

function isIdPrefix(id: Digest, text: string): boolean {
  return id.startsWith(text) || id.slice(id.indexOf(':') + 1).startsWith(text);
}
