import type { Logger } from '@flotilla/log';
import type { ApiVersion } from '@flotilla/docker-api';
import { container as containerProto } from '@flotilla/proto';
import type { container, image, network, volume } from '@flotilla/proto';
import type { Peers } from '../peers.js';
import { containerInspect } from '../shapes/container.js';
import { imageInspect } from '../shapes/image.js';
import { ContainerListCache, ContainerListRenderer } from './container-list.js';
import { ImageIndex } from './image-index.js';
import { ImageListRenderer } from './image-list.js';
import { resolveName } from './object-names.js';
import { RenderCache } from './rendered.js';
import { WatchedSet } from './watched-set.js';

/** Deadline of a read that the owner has to answer because its stream is down. */
const ASK_DEADLINE_MS = 15_000;

/**
 * Everything that lists and inspects are answered from. One stream per owner feeds it; while one is down, the owner
 * itself is asked. Nothing here outlives the process.
 */
export class ReadModel implements AsyncDisposable {
  readonly containers: WatchedSet<container.Container>;
  readonly images: WatchedSet<image.Image>;
  readonly networks: WatchedSet<network.Network>;
  readonly volumes: WatchedSet<volume.Volume>;
  readonly imageIndex: ImageIndex;
  readonly listRenderer: ContainerListRenderer;
  readonly imageList = new ImageListRenderer();
  readonly #lists: ContainerListCache;
  readonly #containerCache = new RenderCache<container.Container>();
  readonly #imageCache = new RenderCache<image.Image>();
  readonly #peers: Peers;

  constructor(peers: Peers, log: Logger) {
    this.#peers = peers;
    const options = (signal: AbortSignal): { signal: AbortSignal; retryUnavailableMs: number } => ({
      signal,
      retryUnavailableMs: 0,
    });
    this.containers = new WatchedSet<container.Container>({
      kind: 'container',
      watch: (signal) => peers.container.watchContainers({}, options(signal)),
      keyOf: ({ id }) => id,
      log,
    });
    this.images = new WatchedSet<image.Image>({
      kind: 'image',
      watch: (signal) => peers.image.watchImages({}, options(signal)),
      keyOf: ({ id }) => id,
      log,
    });
    this.networks = new WatchedSet<network.Network>({
      kind: 'network',
      watch: (signal) => peers.network.watchNetworks({}, options(signal)),
      keyOf: ({ id }) => id,
      log,
    });
    this.volumes = new WatchedSet<volume.Volume>({
      kind: 'volume',
      watch: (signal) => peers.volume.watchVolumes({}, options(signal)),
      keyOf: ({ name }) => name,
      log,
    });
    this.imageIndex = new ImageIndex(this.images);
    this.listRenderer = new ContainerListRenderer(this.imageIndex);
    this.#lists = new ContainerListCache(this.listRenderer);
  }

  /** Begin to follow the owners. */
  start(): void {
    for (const set of this.#sets()) set.start();
  }

  /** Whether every owner's stream is up. */
  get isCurrent(): boolean {
    return this.#sets().every((set) => set.isCurrent);
  }

  /** All containers that are shown. */
  async listContainers(): Promise<container.Container[]> {
    const objects = this.containers.isCurrent
      ? [...this.containers.objects.values()]
      : (await this.#peers.container.listContainers({}, { deadlineMs: ASK_DEADLINE_MS })).containers;
    return objects.filter(isShown);
  }

  /** Containers and images as last known, without waiting for an owner that is down: good for counting. */
  lastKnown(): { containers: container.Container[]; images: number } {
    return { containers: [...shown(this.containers.objects.values())], images: this.images.objects.size };
  }

  /** The finished list without filters, when the model is current. */
  containerListBody(all: boolean, version: ApiVersion): Buffer | undefined {
    if (!this.containers.isCurrent) return undefined;
    const generation = `${this.containers.generation} ${this.images.generation}`;
    return this.#lists.get(shown(this.containers.objects.values()), generation, all, version);
  }

  /** The container of a name, when the model is current. @throws EngineError as Docker when there is none */
  findContainer(name: string): container.Container | undefined {
    if (!this.containers.isCurrent) return undefined;
    const wanted = name.startsWith('/') ? name.slice(1) : name;
    const found = resolveName(
      wanted,
      this.containers.objects,
      (object) => object.name,
      () => `No such container: ${name}`,
    );
    return found;
  }

  /** As {@link findContainer}, but undefined also when there is none. */
  peekContainer(name: string): container.Container | undefined {
    try {
      return this.findContainer(name);
    } catch {
      return undefined;
    }
  }

  /** The container of a name, from the model or its owner. @throws EngineError `notFound` in Docker's words */
  async getContainer(name: string): Promise<container.Container> {
    const known = this.findContainer(name);
    if (known !== undefined) return known;
    const { container: object } = await this.#peers.container.getContainer(
      { name, size: false },
      { deadlineMs: ASK_DEADLINE_MS },
    );
    return object ?? containerProto.Container.fromPartial({});
  }

  /** The finished inspect of a container of the model. */
  containerBody(object: container.Container, version: ApiVersion): Buffer {
    return this.#containerCache.get(object, containerInspect.classOf(version), () =>
      containerInspect.render(object, version),
    );
  }

  /** All images. */
  async listImages(): Promise<image.Image[]> {
    if (this.images.isCurrent) return [...this.images.objects.values()];
    return (await this.#peers.image.listImages({}, { deadlineMs: ASK_DEADLINE_MS })).images;
  }

  /** The image of a name, from the model or its owner. @throws EngineError `notFound` in Docker's words */
  async getImage(name: string): Promise<image.Image | undefined> {
    if (this.images.isCurrent) return this.imageIndex.resolve(name);
    return (await this.#peers.image.getImage({ name }, { deadlineMs: ASK_DEADLINE_MS })).image;
  }

  /** The finished inspect of an image. */
  imageBody(object: image.Image, version: ApiVersion): Buffer {
    return this.#imageCache.get(object, imageInspect.classOf(version), () => imageInspect.render(object, version));
  }

  /** All networks. */
  async listNetworks(): Promise<network.Network[]> {
    if (this.networks.isCurrent) return [...this.networks.objects.values()];
    return (await this.#peers.network.listNetworks({}, { deadlineMs: ASK_DEADLINE_MS })).networks;
  }

  /** All volumes, and what their drivers complain of. */
  async listVolumes(): Promise<{ volumes: volume.Volume[]; warnings: string[] }> {
    if (this.volumes.isCurrent) return { volumes: [...this.volumes.objects.values()], warnings: [] };
    return this.#peers.volume.listVolumes({}, { deadlineMs: ASK_DEADLINE_MS });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#sets().map((set) => set[Symbol.asyncDispose]()));
  }

  #sets(): readonly [
    WatchedSet<container.Container>,
    WatchedSet<image.Image>,
    WatchedSet<network.Network>,
    WatchedSet<volume.Volume>,
  ] {
    return [this.containers, this.images, this.networks, this.volumes];
  }
}

/** A container whose creation is not complete is not there yet. */
const isShown = ({ state }: container.Container): boolean => state?.status !== containerProto.ContainerStatus.CREATING;

function* shown(objects: Iterable<container.Container>): Generator<container.Container> {
  for (const object of objects) if (isShown(object)) yield object;
}
