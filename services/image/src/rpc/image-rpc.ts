import { invalidArgument } from '@flotilla/errors';
import { isNameOnly, parseReference, withDefaultTag, withTagOrDigest } from '@flotilla/oci';
import { image, timestampToDate } from '@flotilla/proto';
import { bidi, isVisible, matchesLabels, serverStream, serviceEntry, unary, watch } from '@flotilla/rpc';
import type { CallContext, Identity, ServiceEntry } from '@flotilla/rpc';
import type { Catalog, CatalogImage } from '../catalog/catalog.js';
import type { StoreCheck } from '../check/check-store.js';
import type { CommitDeps } from '../containers/commit-container.js';
import type { ContainerLayers, PreparedLayer } from '../containers/container-layers.js';
import { historyOf } from '../images/history.js';
import { imageMessage, platformOf } from '../images/image-message.js';
import type { ManifestSummaries } from '../images/manifest-summaries.js';
import { tagReference } from '../images/images.js';
import type { Images } from '../images/images.js';
import type { RemovalPlan } from '../images/remove-image.js';
import { importImage } from '../load/import-image.js';
import { loadImages } from '../load/load-images.js';
import type { LoadDeps } from '../load/load-images.js';
import type { Pusher } from '../push/push-image.js';
import { ProgressLog } from '../pull/progress-log.js';
import type { Puller } from '../pull/pull-image.js';
import { saveImages } from '../save/save-images.js';
import type { SaveDeps } from '../save/save-images.js';
import { findingMessage, summaryMessage } from './store-check-messages.js';
import { containerContentRpc } from './container-content-rpc.js';
import { readUpload, sendDownload } from './streams.js';

export interface ImageRpcDeps {
  readonly catalog: Catalog;
  readonly images: Images;
  readonly puller: Puller;
  readonly pusher: Pusher;
  readonly load: LoadDeps;
  readonly save: SaveDeps;
  readonly commit: CommitDeps;
  readonly containers: ContainerLayers;
  readonly check: StoreCheck;
  readonly manifests: ManifestSummaries;
  /** Where bytes change hands between services on one machine. */
  readonly exchangeDir: string;
}

/** ImageService over the domain. */
export function imageRpc(deps: ImageRpcDeps): ServiceEntry {
  const { catalog, images, puller, pusher, load, save, commit, containers, check, manifests, exchangeDir } = deps;
  const messageOf = (it: CatalogImage): image.Image => imageMessage(it, images.lowerDirs(it), containers.driver);

  return serviceEntry(image.ImageServiceService, {
    ...containerContentRpc(commit, exchangeDir),

    pullImage: serverStream(async function* (request: image.PullImageRequest, { signal }: CallContext) {
      const named = parseReference(request.name);
      const reference = request.tag === '' ? named : withTagOrDigest(named, request.tag);
      const log = new ProgressLog();
      const wanted = { platform: platformOf(request.platform), credentials: request.credentials };
      const work = (stop: AbortSignal): Promise<bigint> =>
        request.allTags && isNameOnly(reference)
          ? puller.pullAll({ ...wanted, reference }, log, stop)
          : puller.pull({ ...wanted, reference: withDefaultTag(reference) }, log, stop);
      for await (const { lines, result } of log.during(work, signal)) {
        yield { progress: lines, revision: result ?? 0n };
      }
    }),

    pushImage: serverStream(async function* (request: image.PushImageRequest, { signal }: CallContext) {
      const named = parseReference(request.name);
      const reference = request.tag === '' ? named : withTagOrDigest(named, request.tag);
      const wanted = { reference, platform: platformOf(request.platform), credentials: request.credentials };
      const log = new ProgressLog();
      for await (const { lines, result } of log.during((stop) => pusher.push(wanted, log, stop), signal)) {
        yield { progress: lines, revision: result ?? 0n };
      }
    }),

    loadImages: bidi(async function* (requests: AsyncIterable<image.LoadImagesRequest>, { signal }: CallContext) {
      using upload = await readUpload<image.LoadStart>(requests, exchangeDir, signal);
      const { start, exchange, data } = upload;
      if (exchange !== undefined) yield { progress: [], revision: 0n, exchange };
      const options = { quiet: start.quiet, platforms: start.platforms.flatMap((it) => platformOf(it) ?? []) };
      const log = new ProgressLog();
      const work = (stop: AbortSignal): Promise<bigint> => loadImages(load, data, options, log, stop);
      for await (const { lines, result } of log.during(work, signal)) {
        yield { progress: lines, revision: result ?? 0n, exchange: image.ExchangeUse.UNSPECIFIED };
      }
    }),

    importImage: bidi(async function* (requests: AsyncIterable<image.ImportImageRequest>, context: CallContext) {
      const { signal, requestId } = context;
      using upload = await readUpload<image.ImportStart>(requests, exchangeDir, signal);
      const { start, exchange, data } = upload;
      if (exchange !== undefined) yield { imageId: '', revision: 0n, exchange };
      const options = {
        reference: start.repository === '' ? undefined : tagReference(start.repository, start.tag),
        message: start.message,
        changes: start.changes,
        platform: platformOf(start.platform),
        source: start.source === '' ? '-' : start.source,
      };
      const { id, revision } = await importImage(load, data, options, signal, (imageId) => ({
        requestId,
        encode: (at) => image.ImportImageResponse.encode(imported(imageId, at)).finish(),
      }));
      yield imported(id, revision);
    }),

    saveImages: serverStream(({ names, platforms, exchangeName }: image.SaveImagesRequest, { signal }: CallContext) => {
      const wanted = platforms.flatMap((it) => platformOf(it) ?? []);
      return sendDownload(saveImages(save, names, wanted, signal), exchangeDir, exchangeName, signal);
    }),

    getImage: unary(({ name, platform }: image.GetImageRequest) =>
      Promise.resolve({ image: messageOf(images.get(name, platformOf(platform))) }),
    ),

    listImages: unary((_: image.ListImagesRequest, { identity }) => {
      const visible = catalog.all().filter((it) => isSeen(it, identity));
      return Promise.resolve({ images: visible.sort(newestFirst).map(messageOf), revision: catalog.revision });
    }),

    listImageManifests: serverStream(({ imageIds }: image.ListImageManifestsRequest, { identity }) => {
      const wanted = new Set(imageIds);
      const isWanted = (it: CatalogImage): boolean => wanted.size === 0 || wanted.has(it.record.id);
      return manifests.of(catalog.all().filter((it) => isSeen(it, identity) && isWanted(it)));
    }),

    getImageHistory: unary(({ name, platform }: image.GetImageHistoryRequest) => {
      const found = images.get(name, platformOf(platform));
      return Promise.resolve({ entries: historyOf(found, (chainId) => images.layerBytes(chainId)) });
    }),

    tagImage: unary(
      async ({ name, repository, tag }: image.TagImageRequest, { requestId }) => ({
        revision: await images.tag(name, repository, tag, {
          requestId,
          encode: (revision) => image.TagImageResponse.encode({ revision }).finish(),
        }),
      }),
      { idempotent: image.TagImageResponse },
    ),

    removeImage: unary(
      async (request: image.RemoveImageRequest, { requestId }) => {
        const options = {
          force: request.force,
          noPrune: request.noPrune,
          running: new Set(request.runningContainerIds),
          platforms: request.platforms.flatMap((it) => platformOf(it) ?? []),
        };
        const { removed, revision } = await images.remove(request.name, options, (what) => ({
          requestId,
          encode: (at) => image.RemoveImageResponse.encode({ removed: removedMessages(what), revision: at }).finish(),
        }));
        return { removed: removedMessages(removed), revision };
      },
      { idempotent: image.RemoveImageResponse },
    ),

    pruneImages: unary(async (request: image.PruneImagesRequest, { signal, identity }) => {
      const filter = {
        dangling: request.dangling,
        until: request.until === undefined ? undefined : timestampToDate(request.until),
        matchesLabels: (own: ReadonlyMap<string, string>) =>
          isVisible(own, identity) && matchesLabels(own, request.labels, request.excludedLabels),
      };
      const { removed, reclaimedBytes, revision } = await images.prune(filter, signal);
      return { removed: removedMessages(removed), reclaimedBytes: BigInt(reclaimedBytes), revision };
    }),

    getImageUsage: unary((_: image.GetImageUsageRequest, { identity }) => {
      const usage = images.usage((it) => isSeen(it, identity));
      return Promise.resolve({
        images: usage.images.map(({ image: { record, leases }, sharedBytes }) => ({
          id: record.id,
          sizeBytes: BigInt(record.sizeBytes),
          sharedSizeBytes: BigInt(sharedBytes),
          containers: BigInt(leases.length),
        })),
        layersSizeBytes: BigInt(usage.layersBytes),
      });
    }),

    watchImages: serverStream((_: image.WatchImagesRequest, { signal, identity }: CallContext) => {
      const source = {
        snapshot: () => ({ revision: catalog.revision, records: catalog.all() }),
        subscribe: (listener: Parameters<typeof catalog.onChange>[0]) => catalog.onChange(listener),
      };
      return watch(source, (it) => (isSeen(it, identity) ? messageOf(it) : undefined), signal);
    }),

    prepareContainerLayer: unary(
      async (request: image.PrepareContainerLayerRequest, { requestId }) => {
        const { containerId = '', containerName = '' } = request.holder ?? {};
        if (Object.keys(request.storageOptions).length > 0) {
          throw invalidArgument("--storage-opt is supported only for overlay over xfs with 'pquota' mount option");
        }
        const respond = (prepared: PreparedLayer, revision: bigint): image.PrepareContainerLayerResponse => ({
          image: prepared.image === undefined ? undefined : messageOf(prepared.image),
          lowerDirs: prepared.lower,
          upperDir: prepared.upper,
          workDir: prepared.work,
          driver: prepared.driver,
          mountedImages: prepared.mounted.map(({ imageId, lower }) => ({ id: imageId, lowerDirs: [...lower] })),
          warnings: [...prepared.warnings],
          revision,
        });
        const { prepared, revision } = await containers.prepare({
          containerId,
          containerName,
          image: request.image,
          platform: platformOf(request.platform),
          mountedImages: request.mountedImages,
          requestId,
          encode: (it, at) => image.PrepareContainerLayerResponse.encode(respond(it, at)).finish(),
        });
        return respond(prepared, revision);
      },
      { idempotent: image.PrepareContainerLayerResponse },
    ),

    releaseContainerLayer: unary(
      async ({ containerId }: image.ReleaseContainerLayerRequest, { requestId }) => ({
        revision: await containers.release(containerId, {
          requestId,
          encode: (revision) => image.ReleaseContainerLayerResponse.encode({ revision }).finish(),
        }),
      }),
      { idempotent: image.ReleaseContainerLayerResponse },
    ),

    getContainerLayerUsage: unary(async ({ containerId }: image.GetContainerLayerUsageRequest, { signal }) => {
      const sizeRw = await containers.changedBytes(containerId, signal);
      const chainIds = catalog.lease(containerId)?.chainIds ?? [];
      const below = chainIds.reduce((sum, chainId) => sum + BigInt(images.layerBytes(chainId)), 0n);
      return { sizeRwBytes: sizeRw, sizeRootFsBytes: sizeRw + below };
    }),

    reconcileHolders: unary(async ({ liveContainerIds }: image.ReconcileHoldersRequest) => ({
      released: await containers.reconcile(new Set(liveContainerIds)),
    })),

    checkStore: serverStream(async function* (request: image.CheckStoreRequest, { signal }: CallContext) {
      for await (const finding of check.run(request, signal)) yield findingMessage(finding);
      yield summaryMessage(await check.summary());
    }),
  });
}

const imported = (imageId: string, revision: bigint): image.ImportImageResponse => ({
  imageId,
  revision,
  exchange: image.ExchangeUse.UNSPECIFIED,
});

function removedMessages(removed: RemovalPlan['removed']): image.RemovedImage[] {
  return removed.map(({ kind, what }) => ({ what: { $case: kind, value: what } }));
}

const isSeen = ({ config }: CatalogImage, identity: Identity): boolean => isVisible(config.run.labels, identity);

/** By the configuration's time, as `docker images` sorts. */
function newestFirst(a: CatalogImage, b: CatalogImage): number {
  return Date.parse(b.config.created ?? '1970-01-01') - Date.parse(a.config.created ?? '1970-01-01');
}
