import { invalidArgument } from '@flotilla/errors';
import { parseReference, withDefaultTag, withTag } from '@flotilla/oci';
import type { Digest, Platform, Reference } from '@flotilla/oci';
import type { Catalog, CatalogChange, CatalogImage } from '../catalog/catalog.js';
import { leasedLayers } from '../catalog/records.js';
import type { LayerStore } from '../layers/index.js';
import { imageTagged, imagesPruned } from './image-events.js';
import { planPrune, planRemoval } from './remove-image.js';
import type { RemovalOptions, RemovalPlan } from './remove-image.js';

export interface ImageDeps {
  readonly catalog: Catalog;
  readonly layers: LayerStore;
  readonly now: () => Date;
}

export type Reply = CatalogChange['reply'];

/** Which images that no container uses a prune means. */
export interface PruneFilter {
  /** Only images without a tag. */
  readonly dangling: boolean;
  /** Only images made before. */
  readonly until: Date | undefined;
  /** Whether the caller may see, and means, an image with these labels. */
  readonly matchesLabels: (labels: ReadonlyMap<string, string>) => boolean;
}

/** Tag, remove, prune and measure images. */
export class Images {
  readonly #deps: ImageDeps;

  constructor(deps: ImageDeps) {
    this.#deps = deps;
  }

  get(name: string, platform?: Platform): CatalogImage {
    return this.#deps.catalog.resolve(name, platform);
  }

  /** Directories of the unpacked layers, topmost first; none while one is missing. */
  lowerDirs({ record }: CatalogImage): string[] {
    const chainIds = record.layers.map(({ chainId }) => chainId);
    const { layers } = this.#deps;
    return chainIds.every((chainId) => layers.has(chainId)) ? layers.lowerDirs(chainIds) : [];
  }

  layerBytes(chainId: string): number {
    return this.#deps.layers.has(chainId) ? Number(this.#deps.layers.sizeOf(chainId)) : 0;
  }

  /** A name takes the images of all its platforms along. @throws EngineError `invalidArgument` for a bad name, `notFound` `No such image: x`. */
  async tag(name: string, repository: string, tag: string, reply: Reply): Promise<bigint> {
    const { catalog, now } = this.#deps;
    const reference = tagReference(repository, tag);
    const { record, config } = catalog.resolve(name);
    const all = catalog.resolveAll(name);
    return catalog.commit({
      putImages: all.map((it) => ({ ...it.record, lastTaggedAt: now().toISOString() })),
      name: [{ reference, imageId: record.id, siblings: all.map((it) => it.record.id) }],
      events: [imageTagged(record.id, reference, config)],
      reply,
    });
  }

  /** @throws EngineError `notFound`, `conflict`. */
  async remove(
    name: string,
    options: RemovalOptions,
    reply: (removed: RemovalPlan['removed']) => Reply,
  ): Promise<{ removed: RemovalPlan['removed']; revision: bigint }> {
    const { catalog } = this.#deps;
    const plan = planRemoval(catalog, name, options);
    const deletedLayers = this.#layersLeftBy(plan);
    const removed = [...plan.removed, ...deletedLayers.map((what) => ({ kind: 'deleted' as const, what }))];
    const revision = await catalog.commit({ ...changeOf(plan), reply: reply(removed) });
    return { removed, revision };
  }

  /** Remove what no container uses. */
  async prune(
    filter: PruneFilter,
    signal: AbortSignal,
  ): Promise<{ removed: RemovalPlan['removed']; reclaimedBytes: number; revision: bigint }> {
    const { catalog } = this.#deps;
    const removed: RemovalPlan['removed'] = [];
    let reclaimedBytes = 0;
    let { revision } = catalog;
    const ids: (Digest | '')[] = catalog.all().map(({ record }) => record.id);
    for (const id of ids) {
      signal.throwIfAborted();
      const image = id === '' ? undefined : catalog.get(id);
      if (image === undefined || !isPrunable(image, filter)) continue;
      const plan = planPrune(catalog, image.record.id);
      if (plan === undefined) continue;
      // Parents may have been passed over for the sake of these.
      ids.push(...plan.removeImages.flatMap((gone) => catalog.get(gone)?.record.parent ?? []));
      const deletedLayers = this.#layersLeftBy(plan);
      for (const chainId of deletedLayers) reclaimedBytes += this.layerBytes(chainId);
      revision = await catalog.commit(changeOf(plan));
      removed.push(...plan.removed, ...deletedLayers.map((what) => ({ kind: 'deleted' as const, what })));
    }
    await catalog.commit({ events: [imagesPruned(reclaimedBytes)] });
    return { removed, reclaimedBytes, revision };
  }

  /** Bytes of each image, of those shared with others, and of all layers together. */
  usage(isWanted: (image: CatalogImage) => boolean): {
    images: { image: CatalogImage; sharedBytes: number }[];
    layersBytes: number;
  } {
    const users = new Map<string, number>();
    const all = this.#deps.catalog.all();
    for (const { record } of all) {
      for (const { chainId } of record.layers) users.set(chainId, (users.get(chainId) ?? 0) + 1);
    }
    const images = all.filter(isWanted).map((image) => ({
      image,
      sharedBytes: image.record.layers
        .filter(({ chainId }) => (users.get(chainId) ?? 0) > 1)
        .reduce((sum, { chainId }) => sum + this.layerBytes(chainId), 0),
    }));
    // Containers hold on to layers of images that were removed by force.
    const { layers } = this.#deps;
    return { images, layersBytes: layers.chainIds().reduce((sum, chainId) => sum + this.layerBytes(chainId), 0) };
  }

  /** Chain ids of the layers that go with the images of the plan, topmost first. */
  #layersLeftBy({ removeImages }: RemovalPlan): Digest[] {
    const { catalog } = this.#deps;
    if (removeImages.length === 0) return [];
    const gone = new Set<Digest>(removeImages);
    const kept = new Set<string>();
    for (const { record } of catalog.all()) {
      if (!gone.has(record.id)) for (const { chainId } of record.layers) kept.add(chainId);
    }
    for (const lease of catalog.leases()) for (const chainId of leasedLayers(lease)) kept.add(chainId);
    const left = removeImages.flatMap((id) => (catalog.get(id)?.record.layers ?? []).map(({ chainId }) => chainId));
    return [...new Set(left)].reverse().filter((chainId) => !kept.has(chainId));
  }
}

function changeOf({ unname, name, removeImages, events }: RemovalPlan): CatalogChange {
  return { unname, name, removeImages, events };
}

/** The reference of `docker tag`'s second argument. */
export function tagReference(repository: string, tag: string): Reference {
  const parsed = parseReference(repository);
  if (parsed.digest !== undefined) throw invalidArgument('refusing to create a tag with a digest reference');
  const reference = withDefaultTag(tag === '' ? parsed : withTag(parsed, tag));
  if (reference.path === 'library/sha256') {
    throw invalidArgument('refusing to create an ambiguous tag using digest algorithm as name');
  }
  return reference;
}

function isPrunable({ leases, references, config }: CatalogImage, filter: PruneFilter): boolean {
  if (leases.length > 0) return false;
  if (filter.dangling && references.some(({ digest }) => digest === undefined)) return false;
  if (filter.until !== undefined && Date.parse(config.created ?? '1970-01-01') >= filter.until.getTime()) return false;
  return filter.matchesLabels(config.run.labels);
}
