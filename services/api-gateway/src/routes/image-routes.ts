import {
  ANONYMOUS,
  apiVersion,
  booleanFilter,
  booleanValue,
  decodeRegistryAuth,
  integerValue,
  parseFilters,
  progressBar,
  renderProgress,
} from '@flotilla/docker-api';
import { internal, invalidArgument, messageOf, notFound } from '@flotilla/errors';
import { familiarName, isNameOnly, parseAnyReference, parseReference, withTagOrDigest } from '@flotilla/oci';
import type { ImageManifestSummary } from '@flotilla/docker-api';
import type { common, image, registry } from '@flotilla/proto';
import type { ApiCall } from '../http/api-call.js';
import type { Route } from '../http/route-table.js';
import { imageFilterKeys, selectImages } from '../model/image-filters.js';
import { containersByImage, imageRow } from '../model/image-list.js';
import { imageManifestShape } from '../shapes/image-manifest.js';
import { historyShape, imageInspect } from '../shapes/image.js';
import { descriptorShape, platformShape } from '../shapes/common.js';
import { isRunning } from '../shapes/container-state.js';
import { ArchiveUpload, archiveDownload } from './archive-transfer.js';
import { platformOf } from './container-routes.js';
import { BULK_MS, SLOW_MS, changing, reading } from './gateway-context.js';
import type { GatewayContext } from './gateway-context.js';
import { streamProgress } from './progress-stream.js';
import { nowNs, pruneSelection } from './prune-filters.js';

/** How many deaths of the image service one pull or push goes on after. */
const REPEATS = 3;

/** Between two lines of progress of a download. */
const DOWNLOAD_TOLD_MS = 250;

/** The endpoints of images. */
export function imageRoutes(context: GatewayContext): Route[] {
  const { peers, model, exchangeDir } = context;
  const settle = (revision: bigint): Promise<void> => model.images.reached(revision);
  const v = apiVersion;
  return [
    { method: 'GET', path: '/images/json', handler: (call) => list(context, call) },
    { method: 'POST', path: '/images/create', handler: (call) => create(context, call) },
    {
      method: 'POST',
      path: '/images/load',
      handler: async (call) => {
        using upload = new ArchiveUpload(exchangeDir, call.body());
        const start: image.LoadStart = {
          quiet: booleanValue(call.query.get('quiet')),
          platforms: platformsOf(call),
          exchangeName: upload.exchangeName,
        };
        async function* requests(): AsyncGenerator<image.LoadImagesRequest> {
          yield { frame: { $case: 'start', value: start } };
          for await (const frame of upload.frames()) yield { frame };
        }
        await streamProgress(call, upload.answers(peers.image.loadImages(requests(), streaming(call))), settle);
      },
    },
    {
      method: 'GET',
      path: '/images/get',
      handler: (call) =>
        save(
          context,
          call,
          call.query.getAll('names').flatMap((text) => text.split(',')),
        ),
    },
    { method: 'GET', path: '/images/search', handler: (call) => search(context, call) },
    {
      method: 'POST',
      path: '/images/prune',
      since: v(1, 25),
      handler: async (call) => {
        const { filters, until, labels, excludedLabels } = pruneSelection(call, ['dangling', 'until']);
        const dangling = booleanFilter(filters, 'dangling') ?? true;
        const { removed, reclaimedBytes, revision } = await peers.image.pruneImages(
          { dangling, until, labels, excludedLabels },
          changing(call, BULK_MS),
        );
        // What has no labels is not chosen by labels.
        const isByLabel = labels.length + excludedLabels.length > 0;
        const cached = isByLabel ? 0n : await pruneCache(context, call, { completeBlobs: !dangling, until });
        await settle(revision);
        call.json(200, {
          ImagesDeleted: removed.map(removedShape),
          SpaceReclaimed: Number(reclaimedBytes + cached),
        });
      },
    },
    { method: 'GET', path: '/images/{name...}/json', handler: (call) => inspect(context, call) },
    {
      method: 'GET',
      path: '/images/{name...}/history',
      handler: async (call) => {
        const { entries } = await peers.image.getImageHistory(
          { name: call.param('name'), platform: platformFrom(call, v(1, 48)) },
          reading(call),
        );
        call.json(200, entries.map(historyShape));
      },
    },
    {
      method: 'GET',
      path: '/images/{name...}/get',
      handler: (call) => save(context, call, [call.param('name')]),
    },
    { method: 'POST', path: '/images/{name...}/push', handler: (call) => push(context, call) },
    {
      method: 'POST',
      path: '/images/{name...}/tag',
      handler: async (call) => {
        const { revision } = await peers.image.tagImage(
          { name: call.param('name'), repository: call.query.get('repo') ?? '', tag: call.query.get('tag') ?? '' },
          changing(call),
        );
        await settle(revision);
        call.empty(201);
      },
    },
    {
      method: 'DELETE',
      path: '/images/{name...}',
      handler: async (call) => {
        const name = call.param('name');
        if (name.trim() === '') throw invalidArgument('image name cannot be blank');
        const { removed, revision } = await peers.image.removeImage(
          {
            name,
            force: booleanValue(call.query.get('force')),
            runningContainerIds: (await model.listContainers())
              .filter(({ state }) => isRunning(state?.status ?? 0))
              .map(({ id }) => id),
            noPrune: booleanValue(call.query.get('noprune')),
            platforms: call.version < v(1, 50) ? [] : platformList(call.query.getAll('platforms')),
          },
          changing(call),
        );
        await settle(revision);
        call.json(200, removed.map(removedShape));
      },
    },
    {
      method: 'GET',
      path: '/distribution/{name...}/json',
      since: v(1, 30),
      handler: (call) => inspectDistribution(context, call),
    },
  ];
}

/** Interrupted pulls, and with all unused images the cached blobs of none. The images are gone: a failure is no reason to say otherwise. */
async function pruneCache(
  { peers, log }: GatewayContext,
  call: ApiCall,
  request: registry.PruneCacheRequest,
): Promise<bigint> {
  try {
    return (await peers.registry.pruneCache(request, changing(call))).reclaimedBytes;
  } catch (err) {
    log.warn({ err }, 'registry cache not pruned');
    return 0n;
  }
}

const streaming = (call: ApiCall): { requestId: string; signal: AbortSignal } => ({
  requestId: call.requestId,
  signal: call.signal,
});

const removedShape = ({ what }: image.RemovedImage): { Untagged?: string; Deleted?: string } =>
  what === undefined ? {} : what.$case === 'untagged' ? { Untagged: what.value } : { Deleted: what.value };

/** Platforms given as JSON objects or as `os/arch`. */
const platformList = (texts: readonly string[]): common.Platform[] =>
  texts
    .filter((text) => text !== '')
    .map((text) => {
      if (!text.startsWith('{'))
        return platformOf(text) ?? { os: '', architecture: '', variant: '', osVersion: '', osFeatures: [] };
      let raw: unknown;
      try {
        raw = JSON.parse(text);
      } catch (cause) {
        throw invalidArgument('failed to parse platform: invalid JSON', { cause });
      }
      const field = (key: string): string => {
        const value = (raw as Record<string, unknown>)[key] ?? '';
        if (typeof value !== 'string') throw invalidArgument(`failed to parse platform: ${key} is not a string`);
        return value;
      };
      return {
        os: field('os'),
        architecture: field('architecture'),
        variant: field('variant'),
        osVersion: field('os.version'),
        osFeatures: [],
      };
    });

const platformsOf = (call: ApiCall): common.Platform[] =>
  call.version < apiVersion(1, 48) ? [] : platformList(call.query.getAll('platform'));

const platformFrom = (call: ApiCall, since: ReturnType<typeof apiVersion>): common.Platform | undefined => {
  const [first] = call.version < since ? [] : platformList(call.query.getAll('platform'));
  return first;
};

/** Credentials of the request. Pull and push ignore what they cannot read, as dockerd does. */
function credentialsOf(call: ApiCall): common.RegistryCredentials {
  const header = call.req.headers['x-registry-auth'];
  try {
    return decodeRegistryAuth(typeof header === 'string' ? header : undefined);
  } catch {
    return ANONYMOUS;
  }
}

async function list({ model, peers }: GatewayContext, call: ApiCall): Promise<void> {
  const { query, version } = call;
  const filters = parseFilters(query.get('filters'), imageFilterKeys);
  const objects = await model.listImages();
  const resolve = (name: string): image.Image => {
    const found = model.images.isCurrent
      ? model.imageIndex.resolve(name)
      : objects.find(({ id, repoTags }) => id === name || repoTags.includes(name));
    if (found === undefined) throw notFound(`No such image: ${name}`);
    return found;
  };
  const isWithManifests = version >= apiVersion(1, 47) && booleanValue(query.get('manifests'));
  const chosen = selectImages(objects, filters, booleanValue(query.get('all')), resolve, nowNs());
  // Images of other platforms under the same names are told of in the manifests.
  const rows = isWithManifests ? chosen.filter((object) => !isSecondary(object)) : chosen;
  const counts = containersByImage(model.lastKnown().containers);
  const isWithSizes = version >= apiVersion(1, 42) && booleanValue(query.get('shared-size'));
  if (!isWithManifests && !isWithSizes) {
    call.send(200, model.imageList.render(rows, version, counts));
    return;
  }
  const shapes = rows.map((object) => imageRow(object, version, counts.get(object.id) ?? 0));
  if (isWithManifests) {
    const manifests = await manifestsOf(peers, rows, call);
    for (const shape of shapes) shape.Manifests = manifests.get(shape.Id) ?? [];
  }
  if (isWithSizes) {
    const { images } = await peers.image.getImageUsage({}, reading(call, SLOW_MS));
    const shared = new Map(images.map(({ id, sharedSizeBytes }) => [id, Number(sharedSizeBytes)]));
    for (const shape of shapes) shape.SharedSize = shared.get(shape.Id) ?? -1;
  }
  call.json(200, shapes);
}

/** Whether all its names mean an image of another platform unless this one's is asked for. */
function isSecondary({ repoTags, repoDigests, secondaryNames }: image.Image): boolean {
  return secondaryNames.length > 0 && secondaryNames.length === repoTags.length + repoDigests.length;
}

async function manifestsOf(
  peers: GatewayContext['peers'],
  objects: readonly image.Image[],
  call: ApiCall,
): Promise<Map<string, ImageManifestSummary[]>> {
  const found = new Map<string, ImageManifestSummary[]>();
  if (objects.length === 0) return found;
  const imageIds = objects.map(({ id }) => id);
  for await (const { imageId, manifests } of peers.image.listImageManifests({ imageIds }, { signal: call.signal })) {
    found.set(
      imageId,
      manifests.flatMap((it) => imageManifestShape(it) ?? []),
    );
  }
  return found;
}

async function inspect({ model, peers }: GatewayContext, call: ApiCall): Promise<void> {
  const name = call.param('name');
  const platform = platformFrom(call, apiVersion(1, 49));
  const isWithManifests = call.version >= apiVersion(1, 48) && booleanValue(call.query.get('manifests'));
  if (platform !== undefined && isWithManifests) {
    throw invalidArgument('conflicting options: manifests and platform options cannot both be set');
  }
  if (platform !== undefined) {
    const { image: object } = await peers.image.getImage({ name, platform }, reading(call));
    if (object === undefined) throw notFound(`No such image: ${name}`);
    call.json(200, imageInspect.render(object, call.version));
    return;
  }
  const object = await model.getImage(name);
  if (object === undefined) throw notFound(`No such image: ${name}`);
  if (isWithManifests) {
    const manifests = await manifestsOf(peers, [object], call);
    call.json(200, { ...imageInspect.render(object, call.version), Manifests: manifests.get(object.id) ?? [] });
    return;
  }
  call.send(200, model.imageBody(object, call.version));
}

async function create(context: GatewayContext, call: ApiCall): Promise<void> {
  const { query } = call;
  const from = query.get('fromImage') ?? '';
  if (from === '') {
    await importImage(context, call);
    return;
  }
  const { peers, model } = context;
  // `pull -a` sends a name with a colon at its end.
  let reference = parseReference(from.endsWith(':') ? from.slice(0, -1) : from);
  const tag = query.get('tag') ?? '';
  if (tag !== '') reference = withTagOrDigest(reference, tag);
  const request: image.PullImageRequest = {
    name: familiarName(reference),
    tag: reference.digest ?? reference.tag ?? '',
    allTags: isNameOnly(reference),
    platform: call.version < apiVersion(1, 32) ? undefined : platformOf(query.get('platform')),
    credentials: credentialsOf(call),
  };
  // What an image service that died had fetched is kept: the pull goes on where it stood.
  const batches = peers.image.pullImage(request, { ...streaming(call), repeats: REPEATS });
  await streamProgress(call, batches, (revision) => model.images.reached(revision));
}

function save({ peers, exchangeDir }: GatewayContext, call: ApiCall, names: string[]): Promise<void> {
  const request = { names, platforms: platformsOf(call) };
  const { signal } = call;
  return call.stream(
    'application/x-tar',
    archiveDownload(exchangeDir, signal, (exchangeName) =>
      peers.image.saveImages({ ...request, exchangeName }, { signal }),
    ),
  );
}

async function importImage({ peers, model, exchangeDir }: GatewayContext, call: ApiCall): Promise<void> {
  const { query } = call;
  const source = query.get('fromSrc') ?? '';
  if (source === '') throw invalidArgument('either fromImage or fromSrc is needed');
  const url = source === '-' ? undefined : sourceUrl(source);
  let repository = query.get('repo') ?? '';
  let tag = query.get('tag') ?? '';
  if (repository !== '') {
    const reference = tag === '' ? parseReference(repository) : withTagOrDigest(parseReference(repository), tag);
    if (reference.digest !== undefined) throw invalidArgument('cannot import digest reference');
    repository = familiarName(reference);
    tag = reference.tag ?? '';
  }
  using upload = new ArchiveUpload(exchangeDir, url === undefined ? call.body() : download(peers, call, url));
  const start: image.ImportStart = {
    repository,
    tag,
    message: query.get('message') ?? '',
    changes: query
      .getAll('changes')
      .flatMap((text) => text.split('\n'))
      .filter((line) => line !== ''),
    platform: platformOf(query.get('platform')),
    // What stands before the `@` of a URL is nobody's business.
    source: url === undefined ? source : withoutLogin(url),
    exchangeName: upload.exchangeName,
  };
  async function* requests(): AsyncGenerator<image.ImportImageRequest> {
    yield { frame: { $case: 'start', value: start } };
    for await (const frame of upload.frames()) yield { frame };
  }
  for await (const { imageId, revision } of upload.answers(peers.image.importImage(requests(), streaming(call)))) {
    await model.images.reached(revision);
    if (!call.isJsonStream) call.startJsonStream();
    await call.write(`${JSON.stringify({ status: imageId })}\r\n`);
  }
  call.end();
}

/** As dockerd, a source without a scheme is a host and a path. */
function sourceUrl(text: string): URL {
  try {
    return new URL(/^[a-z][a-z0-9+.-]*:\/\//i.test(text) ? text : `http://${text}`);
  } catch (cause) {
    // It may hold a password, and errors are logged.
    const shown = text.replace(/\/\/[^/]*@/, '//').slice(0, 200);
    throw invalidArgument(`parse "${shown}": invalid URL`, { cause });
  }
}

function withoutLogin(url: URL): string {
  const shown = new URL(url);
  shown.username = '';
  shown.password = '';
  return shown.href;
}

/** The bytes of a URL, read by registry-proxy; the client sees how far it has come. */
async function* download(peers: GatewayContext['peers'], call: ApiCall, url: URL): AsyncGenerator<Buffer> {
  let current = 0;
  let total = 0;
  let toldAtMs = 0;
  for await (const { data, totalBytes } of peers.registry.fetchUrl({ url: url.href }, { signal: call.signal })) {
    if (!call.isJsonStream) {
      call.startJsonStream();
      await call.write(renderProgress({ status: `Downloading from ${withoutLogin(url)}` }));
      total = Number(totalBytes);
    }
    if (data.length === 0) continue;
    yield Buffer.from(data.buffer, data.byteOffset, data.length);
    current += data.length;
    if (Date.now() - toldAtMs < DOWNLOAD_TOLD_MS) continue;
    toldAtMs = Date.now();
    const detail = { current, ...(total === 0 ? {} : { total }) };
    await call.write(renderProgress({ status: 'Importing', progressDetail: detail, progress: progressBar(detail) }));
  }
}

async function push({ peers, model }: GatewayContext, call: ApiCall): Promise<void> {
  const reference = parseReference(call.param('name'));
  const tag = call.query.get('tag') ?? '';
  const named = tag === '' ? reference : withTagOrDigest(reference, tag);
  const request: image.PushImageRequest = {
    name: familiarName(named),
    tag: named.digest ?? named.tag ?? '',
    platform: platformFrom(call, apiVersion(1, 46)),
    credentials: credentialsOf(call),
  };
  // What the registry has is not sent again when the image service died: the lines come again, the bytes do not.
  const batches = peers.image.pushImage(request, { ...streaming(call), repeats: REPEATS });
  await streamProgress(call, batches, (revision) => model.images.reached(revision));
}

async function search({ peers }: GatewayContext, call: ApiCall): Promise<void> {
  const { query } = call;
  const filters = parseFilters(query.get('filters'), new Set(['is-automated', 'is-official', 'stars']));
  const limit = searchLimit(query.get('limit') ?? '');
  const stars = (filters.get('stars') ?? []).map((text) => {
    if (!/^[+-]?\d{1,18}$/.test(text)) {
      throw invalidArgument(
        `invalid filter 'stars=${text}': strconv.Atoi: parsing ${JSON.stringify(text)}: invalid syntax`,
      );
    }
    return BigInt(text);
  });
  const { results } = await peers.registry.searchImages(
    {
      term: query.get('term') ?? '',
      limit,
      credentials: credentialsOf(call),
      isOfficial: booleanFilter(filters, 'is-official'),
      isAutomated: booleanFilter(filters, 'is-automated'),
      minimumStars: stars.reduce((most, next) => (next > most ? next : most), 0n),
    },
    reading(call, SLOW_MS),
  );
  call.json(
    200,
    results.map((result) => ({
      star_count: Number(result.starCount),
      is_official: result.isOfficial,
      name: result.name,
      is_automated: result.isAutomated,
      description: result.description,
    })),
  );
}

/** Empty: the registry's default. */
function searchLimit(text: string): number {
  let limit: number | undefined;
  try {
    limit = integerValue(text);
  } catch (cause) {
    throw invalidArgument(`invalid limit specified: ${messageOf(cause)}`, { cause });
  }
  if (limit !== undefined && limit < 0) throw invalidArgument('invalid limit specified');
  if (limit !== undefined && limit > 100) throw invalidArgument(`limit ${limit} is outside the range of [1, 100]`);
  return limit ?? 0;
}

async function inspectDistribution({ peers }: GatewayContext, call: ApiCall): Promise<void> {
  const any = parseAnyReference(call.param('name'));
  if (any.kind === 'id') throw internal('no manifest found for full image ID');
  const { reference } = any;
  const { descriptor, platforms, warnings } = await peers.registry.inspectDistribution(
    {
      repository: `${reference.domain}/${reference.path}`,
      reference: reference.digest ?? reference.tag ?? 'latest',
      credentials: credentialsOf(call),
    },
    reading(call, SLOW_MS),
  );
  if (descriptor === undefined) throw notFound(`no such manifest: ${call.param('name')}`);
  for (const warning of warnings) call.warn(warning);
  call.json(200, { Descriptor: descriptorShape(descriptor), Platforms: platforms.map(platformShape) });
}
