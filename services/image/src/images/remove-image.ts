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
import type { Digest, Reference } from '@flotilla/oci';
import type { EngineEvent } from '@flotilla/store';
import type { Catalog, CatalogImage } from '../catalog/catalog.js';
import type { LeaseRecord } from '../catalog/records.js';
import { imageDeleted, imageUntagged } from './image-events.js';

/** What a removal will do: computed without any effect, then committed at once. */
export interface RemovalPlan {
  readonly removed: { readonly kind: 'untagged' | 'deleted'; readonly what: string }[];
  readonly unname: Reference[];
  readonly removeImages: Digest[];
  readonly events: EngineEvent[];
}

export interface RemovalOptions {
  readonly force: boolean;
  /** Leave parents that lose their last child. */
  readonly noPrune: boolean;
  /** Containers that run now: their image cannot be removed even by force. */
  readonly running: ReadonlySet<string>;
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
  const plan = new Removal(catalog, { force: true, noPrune: false, running: new Set() }).prune(id);
  return plan.removed.length === 0 ? undefined : plan;
}

class Removal {
  readonly #catalog: Catalog;
  readonly #options: RemovalOptions;
  readonly #plan: RemovalPlan = { removed: [], unname: [], removeImages: [], events: [] };
  readonly #unnamed = new Set<string>();

  constructor(catalog: Catalog, options: RemovalOptions) {
    this.#catalog = catalog;
    this.#options = options;
  }

  plan(nameOrId: string): RemovalPlan {
    const image = this.#catalog.resolve(nameOrId);
    const byId = isIdPrefix(image.record.id, nameOrId);
    if (byId) this.#untagById(image);
    else if (!this.#untagByName(image, nameOrId)) return this.#plan;
    this.#delete(image.record.id, !byId);
    return this.#plan;
  }

  prune(id: Digest): RemovalPlan {
    if (this.#catalog.childrenOf(id).length === 0) this.#delete(id, true);
    return this.#plan;
  }

  /** Gives false when other names keep the image. */
  #untagByName(image: CatalogImage, name: string): boolean {
    const user = image.leases[0];
    if (!this.#options.force && isSingleReference(image.references) && user !== undefined) {
      throw conflict(
        `conflict: unable to remove repository reference "${name}" (must force) - container ${shortId(user.containerId)} is using its referenced image ${shortId(image.record.id)}`,
      );
    }
    const parsed = withDefaultTag(parseReference(name));
    const reference = image.references.find((it) => canonicalString(it) === canonicalString(parsed)) ?? {
      domain: parsed.domain,
      path: parsed.path,
      ...(parsed.digest === undefined ? {} : { digest: parsed.digest }),
    };
    this.#untag(image, reference);
    // The last tag of a repository takes its digests along.
    const rest = this.#references(image);
    const sameRepository = rest.filter((it) => repositoryName(it) === repositoryName(reference));
    if (reference.digest === undefined && sameRepository.every(({ digest }) => digest !== undefined)) {
      for (const digest of sameRepository) this.#untag(image, digest, false);
    }
    return this.#references(image).length === 0;
  }

  #untagById(image: CatalogImage): void {
    if (!isSingleReference(image.references)) return;
    const problem = this.#conflictOf(image, { soft: !this.#options.force, references: false });
    if (problem !== undefined) throw problem.error;
    for (const reference of image.references) this.#untag(image, reference);
  }

  #untag(image: CatalogImage, reference: Reference, withEvent = true): void {
    this.#unnamed.add(canonicalString(reference));
    this.#plan.unname.push(reference);
    this.#plan.removed.push({ kind: 'untagged', what: familiarString(reference) });
    if (withEvent) this.#plan.events.push(imageUntagged(image.record.id, image.config));
  }

  #delete(id: Digest, quiet: boolean, force = this.#options.force): void {
    const image = this.#catalog.get(id);
    if (image === undefined) return;
    const problem = this.#conflictOf(image, { soft: !force, references: true });
    if (problem !== undefined) {
      if (quiet && (this.#references(image).length > 0 || problem.isUsed)) return;
      throw problem.error;
    }
    for (const reference of this.#references(image)) this.#untag(image, reference);
    this.#plan.removeImages.push(id);
    this.#plan.events.push(imageDeleted(id, image.config));
    this.#plan.removed.push({ kind: 'deleted', what: id });
    const { parent } = image.record;
    if (!this.#options.noPrune && parent !== '') this.#delete(parent, true, false);
  }

  #conflictOf(
    image: CatalogImage,
    checks: { soft: boolean; references: boolean },
  ): { error: EngineError; isUsed: boolean } | undefined {
    const { id } = image.record;
    const refuse = (how: 'cannot be forced' | 'must be forced', why: string, isUsed = false) => ({
      error: conflict(`conflict: unable to delete ${shortId(id)} (${how}) - ${why}`),
      isUsed,
    });
    const gone = new Set<string>(this.#plan.removeImages);
    if (this.#catalog.childrenOf(id).some((child) => !gone.has(child))) {
      return refuse('cannot be forced', 'image has dependent child images');
    }
    const isRunning = ({ containerId }: LeaseRecord): boolean => this.#options.running.has(containerId);
    const runner = image.leases.find(isRunning);
    if (runner !== undefined) {
      const why = `image is being used by running container ${shortId(runner.containerId)}`;
      return refuse('cannot be forced', why, true);
    }
    if (!checks.soft) return undefined;
    if (checks.references && this.#references(image).length > 0) {
      return refuse('must be forced', 'image is referenced in multiple repositories');
    }
    const stopped = image.leases[0];
    if (stopped === undefined) return undefined;
    return refuse('must be forced', `image is being used by stopped container ${shortId(stopped.containerId)}`, true);
  }

  /** The names that are left. */
  #references(image: CatalogImage): Reference[] {
    return image.references.filter((reference) => !this.#unnamed.has(canonicalString(reference)));
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
