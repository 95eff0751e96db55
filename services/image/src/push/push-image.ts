import { invalidArgument, notFound } from '@flotilla/errors';
import { familiarName, familiarString, repositoryName, sha256Of, trimReference, withDigest } from '@flotilla/oci';
import type { Descriptor, Digest, Platform, Reference } from '@flotilla/oci';
import type { registry } from '@flotilla/proto';
import pLimit from 'p-limit';
import type { LimitFunction } from 'p-limit';
import type { Catalog, CatalogImage, Hold } from '../catalog/catalog.js';
import type { ContentStore } from '../content/content-store.js';
import { imagePushed } from '../images/image-events.js';
import { blobsOf } from '../pull/pull-image.js';
import type { ProgressLog } from '../pull/progress-log.js';
import type { Credentials, FetchProgress } from '../pull/registry-source.js';
import { SharedTasks } from '../pull/shared-tasks.js';
import type { BlobRepositories } from './blob-repositories.js';
import { planPush } from './push-plan.js';
import type { PlannedLayer, PushPlan } from './push-plan.js';
import type { RegistryTarget } from './registry-target.js';

export interface PushDeps {
  readonly catalog: Catalog;
  readonly content: ContentStore;
  readonly target: RegistryTarget;
  readonly repositories: BlobRepositories;
}

export interface PushRequest {
  /** Without a tag: every tag of the repository. */
  readonly reference: Reference;
  readonly platform: Platform | undefined;
  readonly credentials: Credentials;
}

/** Pushes images; transfers are bounded over all pushes, the same blob for the same repository is sent once. */
export class Pusher {
  readonly #deps: PushDeps;
  readonly #uploads: LimitFunction;
  readonly #shared = new SharedTasks<FetchProgress, registry.PushedBlob>();

  constructor(deps: PushDeps, maxConcurrentUploads: number) {
    this.#deps = deps;
    this.#uploads = pLimit(maxConcurrentUploads);
  }

  set maxConcurrentUploads(count: number) {
    this.#uploads.concurrency = count;
  }

  /**
   * Push one tag or all of a repository. The first line goes out before anything can fail but the platform, as in
   * dockerd: other refusals come in band. The registry's name for what was pushed is kept as name@digest.
   *
   * @throws EngineError `notFound` `An image does not exist locally with the tag: x`; as the registry refused.
   */
  async push(request: PushRequest, log: ProgressLog, signal: AbortSignal): Promise<bigint> {
    const { reference, platform } = request;
    const { catalog } = this.#deps;
    if (platform !== undefined) catalog.resolve(familiarString(reference), platform);
    log.push({ status: `The push refers to repository [${repositoryName(reference)}]` });
    let revision = catalog.revision;
    let last: CatalogImage | undefined;
    for (const tagged of this.#taggedBy(reference, platform)) {
      last = tagged.image;
      revision = await this.#pushTag({ ...request, ...tagged }, log, signal);
    }
    if (last === undefined) throw notFound(`no tags to push for ${familiarName(reference)}`);
    return bigger(revision, await catalog.commit({ events: [imagePushed(reference, last.config)] }));
  }

  /** The tags that are meant, each with its image: of several platforms the one wanted, or this machine's. */
  #taggedBy(reference: Reference, platform: Platform | undefined): { reference: Reference; image: CatalogImage }[] {
    const { catalog } = this.#deps;
    const name = repositoryName(reference);
    const all = new Map(
      catalog
        .all()
        .flatMap(({ references }) => references.filter((it) => repositoryName(it) === name))
        .map((it) => [familiarString(it), it]),
    );
    if (all.size === 0) throw notFound(`An image does not exist locally with the tag: ${familiarName(reference)}`);
    if (reference.digest !== undefined) throw invalidArgument('cannot push a digest reference');
    const tags = [...all].filter(([, { digest }]) => digest === undefined).sort(([a], [b]) => (a < b ? -1 : 1));
    const wanted = reference.tag === undefined ? tags : tags.filter(([, { tag }]) => tag === reference.tag);
    if (reference.tag !== undefined && wanted.length === 0) {
      throw notFound(`tag does not exist: ${familiarString(reference)}`);
    }
    return wanted.map(([text, it]) => ({ reference: it, image: catalog.resolve(text, platform) }));
  }

  async #pushTag(tagged: TaggedPush, log: ProgressLog, signal: AbortSignal): Promise<bigint> {
    const { catalog, content } = this.#deps;
    const hold = catalog.hold();
    try {
      hold.blobs(blobsOf(tagged.image.record).map(({ digest }) => digest));
      const plan = await planPush(content, tagged.image, tagged.reference, tagged.platform !== undefined);
      hold.blobs(blobsIn(plan));
      const stop = new AbortController();
      const session = new PushSession(
        this.#deps,
        { uploads: this.#uploads, shared: this.#shared, hold },
        tagged,
        log,
        AbortSignal.any([signal, stop.signal]),
        (error) => stop.abort(error),
      );
      try {
        return await session.run(plan);
      } catch (error) {
        signal.throwIfAborted();
        // The failure that made the others stop, not one of theirs.
        throw stop.signal.aborted ? stop.signal.reason : error;
      }
    } finally {
      await hold.release();
    }
  }
}

interface TaggedPush extends PushRequest {
  readonly image: CatalogImage;
}

interface SharedParts {
  readonly uploads: LimitFunction;
  readonly shared: SharedTasks<FetchProgress, registry.PushedBlob>;
  readonly hold: Hold;
}

class PushSession {
  readonly #deps: PushDeps;
  readonly #parts: SharedParts;
  readonly #push: TaggedPush;
  readonly #log: ProgressLog;
  readonly #signal: AbortSignal;
  readonly #fail: (error: unknown) => void;

  constructor(
    deps: PushDeps,
    parts: SharedParts,
    push: TaggedPush,
    log: ProgressLog,
    signal: AbortSignal,
    fail: (error: unknown) => void,
  ) {
    this.#deps = deps;
    this.#parts = parts;
    this.#push = push;
    this.#log = log;
    this.#signal = signal;
    this.#fail = fail;
  }

  async run({ layers, configs, manifests }: PushPlan): Promise<bigint> {
    const { target } = this.#deps;
    const { reference, credentials } = this.#push;
    for (const { id } of layers) this.#log.push({ id, status: 'Preparing' });
    await this.#all(layers, (layer) => this.#pushLayer(layer));
    await this.#all(configs, async (config) => {
      await this.#pushBlob(
        config,
        [],
        () => undefined,
        () => undefined,
      );
    });
    const last = manifests.at(-1);
    if (last === undefined) throw notFound(`no manifest for ${familiarString(reference)}`);
    for (const manifest of manifests) {
      const name = manifest === last ? (reference.tag ?? manifest.digest) : manifest.digest;
      await target.pushManifest(reference, name, manifest, credentials, this.#signal);
    }
    const { tag = '' } = reference;
    const { digest, content } = last;
    this.#log.push({ status: `${tag}: digest: ${digest} size: ${content.length}` });
    const revision = await this.#name(digest);
    this.#log.push({ status: '', auxJson: JSON.stringify({ Tag: tag, Digest: digest, Size: content.length }) });
    return revision;
  }

  /** All at once; the first failure stops the rest. */
  async #all<T>(items: readonly T[], work: (item: T) => Promise<void>): Promise<void> {
    const results = await Promise.allSettled(
      items.map(async (item) => {
        try {
          await work(item);
        } catch (error) {
          this.#fail(error);
          throw error;
        }
      }),
    );
    for (const result of results) if (result.status === 'rejected') throw result.reason;
  }

  async #pushLayer({ descriptor, id }: PlannedLayer): Promise<void> {
    const log = this.#log;
    if (descriptor.urls.length > 0) {
      log.push({ id, status: 'Skipped foreign layer' });
      return;
    }
    const { repositories } = this.#deps;
    const mountFrom = repositories.mountCandidates(descriptor.digest, this.#push.reference);
    const report = ({ current, total, status }: FetchProgress): void => {
      if (status !== '') log.push({ id, status });
      else log.detail(id, 'Pushing', current, total);
    };
    const pushed = await this.#pushBlob(descriptor, mountFrom, report, () => log.push({ id, status: 'Waiting' }));
    if (pushed.mountedFrom !== '') log.push({ id, status: `Mounted from ${pushed.mountedFrom}` });
    else log.push({ id, status: pushed.alreadyExists ? 'Layer already exists' : 'Pushed' });
  }

  async #pushBlob(
    descriptor: Descriptor,
    mountFrom: readonly string[],
    report: (progress: FetchProgress) => void,
    onWait: () => void,
  ): Promise<registry.PushedBlob> {
    const { uploads, shared } = this.#parts;
    const { target } = this.#deps;
    const { reference, credentials } = this.#push;
    if (uploads.activeCount >= uploads.concurrency) onWait();
    return uploads(async () => {
      this.#signal.throwIfAborted();
      // Whose credentials they are is part of it: a push that is refused fails nobody else's.
      const key = sha256Of(JSON.stringify([repositoryName(reference), descriptor.digest, credentials ?? null]));
      return shared.join(key, report, this.#signal, (tell, stop) =>
        target.pushBlob(trimReference(reference), descriptor, mountFrom, credentials, tell, stop),
      );
    });
  }

  /** Keep the registry's name for it, unless the image was removed meanwhile or the name is taken. */
  async #name(digest: Digest): Promise<bigint> {
    const { catalog } = this.#deps;
    const { reference, image } = this.#push;
    const name = withDigest(reference, digest);
    if (catalog.get(image.record.id) === undefined || catalog.named(name) !== undefined) return catalog.revision;
    const siblings = catalog
      .imagesNamed(reference)
      .filter((id) => id !== image.record.id && catalog.get(id)?.record.index?.digest === digest);
    return catalog.commit({ name: [{ reference: name, imageId: image.record.id, siblings }] });
  }
}

const blobsIn = ({ layers, configs, manifests }: PushPlan): Digest[] => [
  ...layers.map(({ descriptor }) => descriptor.digest),
  ...configs.map(({ digest }) => digest),
  ...manifests.map(({ digest }) => digest),
];

const bigger = (a: bigint, b: bigint): bigint => (a > b ? a : b);
