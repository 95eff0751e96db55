import { randomUUID } from 'node:crypto';
import { invalidArgument, notFound } from '@flotilla/errors';
import {
  familiarName,
  familiarString,
  maxConfigBytes,
  parseDigest,
  parseImageConfig,
  parseManifest,
  parseReference,
  trimReference,
  withTagOrDigest,
} from '@flotilla/oci';
import type { Descriptor, Platform, Reference } from '@flotilla/oci';
import { registry, timestampToDate } from '@flotilla/proto';
import type { common } from '@flotilla/proto';
import { serverStream, serviceEntry, unary } from '@flotilla/rpc';
import type { ServiceEntry } from '@flotilla/rpc';
import type { BlobCache } from '../blobs/blob-cache.js';
import type { BlobProgress, BlobRequest } from '../blobs/blob-download.js';
import type { BlobTransfers } from '../blobs/blob-transfers.js';
import { uploadBlob } from '../push/blob-upload.js';
import type { BlobUpload, UploadDeps, UploadOutcome } from '../push/upload.js';
import { openExchangeFile } from '../push/exchange-file.js';
import { pushManifest } from '../push/manifest-push.js';
import { toPushError } from '../push/pushed-content.js';
import { searchIndex } from '../search/search-index.js';
import type { Endpoints } from '../upstream/endpoints.js';
import { authenticate } from '../upstream/login.js';
import { toPlainError } from '../upstream/plain-error.js';
import { listTags } from '../upstream/tags.js';
import type { AnsweredManifest, CachedManifests } from '../cache/cached-manifests.js';
import type { ManifestRequest } from '../upstream/manifests.js';
import type { HttpTransport } from '../upstream/http-transport.js';
import type { RegistryClient } from '../upstream/registry-client.js';
import { toPullError } from '../upstream/registry-error.js';
import { fetchUrl } from './fetch-url.js';
import { latestThenEnd } from './latest-then-end.js';

export interface RegistryRpcDeps {
  readonly transport: HttpTransport;
  readonly uploads: UploadDeps;
  readonly exchangeDir: string;
  readonly endpoints: Endpoints;
  readonly client: RegistryClient;
  readonly manifests: CachedManifests;
  readonly transfers: BlobTransfers;
  readonly cache: BlobCache;
}

/** RegistryService over the proxy's parts. */
export function registryRpc(deps: RegistryRpcDeps): ServiceEntry {
  const { transport, endpoints, client, manifests, transfers, cache, uploads, exchangeDir } = deps;

  const resolve = async (request: ManifestRequest): Promise<AnsweredManifest> => {
    try {
      return await manifests.fetch(request);
    } catch (error) {
      request.signal?.throwIfAborted();
      throw toPullError(error, subjectOf(request));
    }
  };

  return serviceEntry(registry.RegistryServiceService, {
    resolveManifest: unary(async (request: registry.ResolveManifestRequest, { signal }) => {
      const { mediaType, digest, content, warnings } = await resolve(manifestRequest(request, signal));
      return { mediaType, digest, content, warnings: [...warnings] };
    }),

    fetchBlob: serverStream((request: registry.FetchBlobRequest, { signal }) => {
      const wanted: BlobRequest = {
        repository: trimReference(parseReference(request.repository)),
        digest: parseDigest(request.digest),
        size: sizeOf(request.sizeBytes),
        credentials: request.credentials,
      };
      const { stream: asStream, follow } = request;
      return fetchBlob(transfers, cache, wanted, { asStream, follow, linkName: linkNameOf(request) }, signal);
    }),

    forgetBlobs: unary(({ digests, corrupt }: registry.ForgetBlobsRequest) => {
      if (corrupt) for (const digest of digests) cache.distrust(parseDigest(digest));
      else cache.evictSoon();
      return Promise.resolve({});
    }),

    getCacheUsage: unary(async (_: registry.GetCacheUsageRequest) => {
      const { blobs, ownBytes, sharedBytes, partialBlobs, partialBytes } = await cache.usage();
      return {
        blobs: BigInt(blobs),
        ownBytes: BigInt(ownBytes),
        sharedBytes: BigInt(sharedBytes),
        partialBlobs: BigInt(partialBlobs),
        partialBytes: BigInt(partialBytes),
      };
    }),

    pruneCache: unary(async ({ completeBlobs, until }: registry.PruneCacheRequest) => {
      const beforeMs = until === undefined ? Infinity : timestampToDate(until).getTime();
      return { reclaimedBytes: BigInt(await cache.prune({ complete: completeBlobs, beforeMs })) };
    }),

    listTags: unary(async ({ repository: name, credentials }: registry.ListTagsRequest, { signal }) => {
      const repository = trimReference(parseReference(name));
      try {
        return { tags: await listTags(client, repository, credentials, signal) };
      } catch (error) {
        signal.throwIfAborted();
        throw toPullError(error, { name: familiarName(repository), reference: familiarName(repository) });
      }
    }),

    authenticate: unary(async ({ credentials }: registry.AuthenticateRequest, { signal }) => {
      if (credentials === undefined) throw invalidArgument('no credentials given');
      return { status: 'Login Succeeded', identityToken: await authenticate(client, credentials, signal) };
    }),

    fetchUrl: serverStream(({ url }: registry.FetchUrlRequest, { signal }) => fetchUrl(transport, url, signal)),

    inspectDistribution: unary(async (request: registry.InspectDistributionRequest, { signal }) => {
      const wanted = manifestRequest(request, signal);
      const found = await manifests.fetch(wanted).catch((error: unknown) => {
        signal.throwIfAborted();
        throw toPlainError(error);
      });
      const manifest = parseManifest(found.content, found.mediaType);
      const descriptor: common.Descriptor = {
        mediaType: manifest.mediaType,
        digest: found.digest,
        sizeBytes: BigInt(found.content.length),
        urls: [],
        annotations: {},
      };
      const warnings = [...found.warnings];
      if (manifest.kind === 'index') {
        return { descriptor, platforms: manifest.manifests.flatMap(platformOf), warnings };
      }
      // As in dockerd, a configuration that cannot be had leaves the platform out.
      const config = await readConfig(transfers, cache, wanted, manifest.config, signal).catch(() => undefined);
      signal.throwIfAborted();
      return { descriptor, platforms: config === undefined ? [] : [toProto(config)], warnings };
    }),

    searchImages: unary(async (request: registry.SearchImagesRequest, { signal }) => {
      const { term, limit, credentials, isOfficial, isAutomated, minimumStars } = request;
      const query = { term, limit, credentials, isOfficial, isAutomated, minimumStars: Number(minimumStars) };
      const found = await searchIndex({ endpoints, transport, client }, query, signal);
      return {
        results: found.map(({ starCount, ...it }) => ({ ...it, starCount: BigInt(starCount), isAutomated: false })),
      };
    }),

    pushBlob: serverStream((request: registry.PushBlobRequest, { signal }) => {
      const repository = trimReference(parseReference(request.repository));
      const wanted = {
        repository,
        digest: parseDigest(request.digest),
        size: sizeOf(request.sizeBytes),
        credentials: request.credentials,
        mountFrom: request.mountFrom.flatMap((name) => {
          const { domain, path } = parseReference(name);
          return domain === repository.domain && path !== repository.path ? [path] : [];
        }),
      };
      return pushBlob(uploads, exchangeDir, request.path, wanted, signal);
    }),

    pushManifest: unary(async (request: registry.PushManifestRequest, { signal }) => {
      const repository = trimReference(parseReference(request.repository));
      withTagOrDigest(repository, request.reference);
      const { reference: target, mediaType, content, credentials } = request;
      const push = { repository, target, mediaType, content, credentials };
      try {
        return { digest: await pushManifest(client, uploads.retry, push, signal) };
      } catch (error) {
        signal.throwIfAborted();
        throw toPushError(error);
      }
    }),

    getRegistryConfig: unary((_: registry.GetRegistryConfigRequest) => {
      const hub = { name: 'docker.io', mirrors: [...endpoints.mirrors], secure: true, official: true };
      const insecure = endpoints.insecureNames.map((name) => ({ name, mirrors: [], secure: false, official: false }));
      return Promise.resolve({
        insecureCidrs: [...endpoints.insecureCidrs],
        indexes: [hub, ...insecure],
        mirrors: [...endpoints.mirrors],
      });
    }),
  });
}

async function* pushBlob(
  uploads: UploadDeps,
  exchangeDir: string,
  path: string,
  wanted: Omit<BlobUpload, 'file'>,
  signal: AbortSignal,
): AsyncGenerator<registry.PushBlobResponse> {
  const steps = latestThenEnd<BlobProgress, UploadOutcome>(async (report) => {
    const file = await openExchangeFile(exchangeDir, path, wanted.size);
    try {
      return await uploadBlob(uploads, { ...wanted, file }, report, signal);
    } finally {
      await file.close();
    }
  });
  try {
    for await (const step of steps) {
      if (step.kind === 'latest') yield { event: { $case: 'progress', value: progressMessage(step.value) } };
      else yield { event: { $case: 'done', value: outcomeMessage(step.value) } };
    }
  } catch (error) {
    signal.throwIfAborted();
    throw toPushError(error);
  }
}

const progressMessage = ({ current, total, status }: BlobProgress): registry.FetchProgress => ({
  currentBytes: BigInt(current),
  totalBytes: BigInt(total),
  status,
});

const outcomeMessage = (outcome: UploadOutcome): registry.PushedBlob => ({
  mountedFrom: outcome.kind === 'mounted' ? outcome.from : '',
  alreadyExists: outcome.kind === 'exists',
  transferredBytes: outcome.kind === 'sent' ? BigInt(outcome.transferred) : 0n,
});

/** The last message of a transfer; a reader that leaves instead of taking it leaves no link behind. */
async function* deliver(cache: BlobCache, value: registry.FetchedBlob): AsyncGenerator<registry.FetchBlobResponse> {
  let isTaken = false;
  try {
    yield { event: { $case: 'done', value } };
    isTaken = true;
  } finally {
    if (!isTaken) await cache.drop(value.path);
  }
}

async function* fetchBlob(
  transfers: BlobTransfers,
  cache: BlobCache,
  wanted: BlobRequest,
  { asStream, follow, linkName }: { readonly asStream: boolean; readonly follow: boolean; readonly linkName: string },
  signal: AbortSignal,
): AsyncGenerator<registry.FetchBlobResponse> {
  let shown: { readonly path: string; readonly generation: number } | undefined;
  const show = async ({ partial }: BlobProgress): Promise<registry.PartialBlob | undefined> => {
    if (!follow || partial === undefined) return undefined;
    const { written, generation } = partial;
    if (shown?.generation !== generation) {
      const path = await cache.showPartial(wanted.digest, linkName);
      shown = path === undefined ? undefined : { path, generation };
    }
    return shown === undefined
      ? undefined
      : { path: shown.path, writtenBytes: BigInt(written), generation: BigInt(generation) };
  };
  const steps = latestThenEnd<BlobProgress, { path: string; size: number; transferred: number }>((report) =>
    transfers.fetch(wanted, report, signal, async ({ size, transferred }) => {
      const path = await cache.handOver(wanted.digest, linkName);
      // The caller left in this very moment: nobody will take the link.
      if (signal.aborted) await cache.drop(path);
      return { path, size, transferred };
    }),
  );
  try {
    for await (const step of steps) {
      if (step.kind === 'latest') {
        const value = { ...progressMessage(step.value), partial: await show(step.value) };
        yield { event: { $case: 'progress', value } };
        continue;
      }
      const { path, size, transferred } = step.value;
      shown = undefined;
      const value = { path, sizeBytes: BigInt(size), transferredBytes: BigInt(transferred) };
      if (!asStream) yield* deliver(cache, value);
      else {
        for await (const chunk of cache.takeBack(path)) yield { event: { $case: 'data', value: chunk } };
        yield { event: { $case: 'done', value: { ...value, path: '' } } };
      }
    }
  } catch (error) {
    signal.throwIfAborted();
    throw toPullError(error, subjectOf({ repository: wanted.repository, target: wanted.digest }));
  } finally {
    if (shown !== undefined) await cache.drop(shown.path);
  }
}

async function readConfig(
  transfers: BlobTransfers,
  cache: BlobCache,
  { repository, credentials }: ManifestRequest,
  { digest, size }: Descriptor,
  signal: AbortSignal,
): Promise<Platform | undefined> {
  if (size > maxConfigBytes) return undefined;
  return transfers.fetch(
    { repository, digest, size, credentials },
    () => undefined,
    signal,
    async () => {
      const chunks: Buffer[] = [];
      for await (const chunk of cache.read(digest)) chunks.push(chunk);
      try {
        return parseImageConfig(Buffer.concat(chunks)).platform;
      } catch {
        // An artifact that is no image has no platform.
        return undefined;
      }
    },
  );
}

function manifestRequest(
  request: registry.ResolveManifestRequest | registry.InspectDistributionRequest,
  signal: AbortSignal,
): ManifestRequest {
  const repository = trimReference(parseReference(request.repository));
  if (request.reference === '') throw notFound('no tag or digest given');
  withTagOrDigest(repository, request.reference);
  return { repository, target: request.reference, credentials: request.credentials, signal };
}

function subjectOf({ repository, target }: { repository: Reference; target: string }): {
  name: string;
  reference: string;
} {
  return { name: familiarName(repository), reference: familiarString(withTagOrDigest(repository, target)) };
}

function linkNameOf({ exchangeName }: registry.FetchBlobRequest): string {
  if (exchangeName === '') return randomUUID();
  if (!/^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(exchangeName)) {
    throw invalidArgument('exchange_name must be a UUID');
  }
  return exchangeName;
}

function sizeOf(bytes: bigint): number {
  if (bytes < 0n || bytes > BigInt(Number.MAX_SAFE_INTEGER)) throw invalidArgument(`invalid blob size ${bytes}`);
  return Number(bytes);
}

const platformOf = ({ platform }: Descriptor): common.Platform[] => (platform === undefined ? [] : [toProto(platform)]);

const toProto = ({ os, architecture, variant, osVersion = '' }: Platform): common.Platform => ({
  os,
  architecture,
  variant,
  osVersion,
  osFeatures: [],
});
