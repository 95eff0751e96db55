import type { IncomingMessage, ServerResponse } from 'node:http';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import type { Logger } from '@flotilla/log';
import type { Digest, Reference } from '@flotilla/oci';
import { mediaTypes } from '@flotilla/oci';
import pLimit from 'p-limit';
import type { BlobCache } from '../blobs/blob-cache.js';
import type { BlobTransfers } from '../blobs/blob-transfers.js';
import type { CachedManifests } from '../cache/cached-manifests.js';
import type { Credentials } from '../upstream/credentials.js';
import type { RegistryClient } from '../upstream/registry-client.js';
import { listTags } from '../upstream/tags.js';
import { readRange } from './byte-range.js';
import type { FrontDoor } from './front-door.js';
import { OciError, toOciError } from './oci-error.js';
import type { Subject } from './oci-error.js';
import { listReferrers } from './referrers.js';
import { readTarget } from './request-target.js';
import type { RequestTarget } from './request-target.js';

export interface DistributionDeps {
  readonly client: RegistryClient;
  readonly manifests: CachedManifests;
  readonly transfers: BlobTransfers;
  readonly cache: BlobCache;
  readonly door: FrontDoor;
  readonly log: Logger;
}

/** Requests that are worked on at once, and that may wait for that. */
const maxActive = 64;
const maxWaiting = 256;
/** A reader that takes nothing for so long is left. */
const idleReaderMs = 120_000;

const subjects: Readonly<Record<RequestTarget['kind'], Subject>> = {
  base: 'name',
  manifest: 'manifest',
  blob: 'blob',
  tags: 'name',
  referrers: 'manifest',
};

interface Exchange {
  readonly url: URL;
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly credentials: Credentials | undefined;
  /** Fires when the client leaves. */
  readonly signal: AbortSignal;
}

/** The read side of the OCI distribution API over the cache, for every registry: a pull-through. Answers and never throws. */
export function distributionApi(deps: DistributionDeps): (request: IncomingMessage, response: ServerResponse) => void {
  const active = pLimit(maxActive);
  return (request, response) => {
    const left = new AbortController();
    response.once('close', () => left.abort(new Error('the client left')));
    response.on('error', () => undefined);
    response.setHeader('docker-distribution-api-version', 'registry/2.0');
    if (active.pendingCount >= maxWaiting) {
      refuse(response, new OciError(429, 'TOOMANYREQUESTS', 'too many requests at once', { 'retry-after': '1' }));
      return;
    }
    void active(async () => {
      if (!left.signal.aborted) await answer(deps, request, response, left.signal);
    });
  };
}

async function answer(
  deps: DistributionDeps,
  request: IncomingMessage,
  response: ServerResponse,
  signal: AbortSignal,
): Promise<void> {
  let subject: Subject = 'name';
  const { door } = deps;
  try {
    const url = readUrl(request.url);
    if (url.pathname === '/token' && request.method === 'GET' && door.givesPasses) {
      const pass = Buffer.from(JSON.stringify(door.givePass(request)));
      send(response, request, 200, { 'content-type': 'application/json', 'cache-control': 'no-store' }, pass);
      return;
    }
    const credentials = door.admit(request);
    if (request.method !== 'GET' && request.method !== 'HEAD') {
      // Its body is not read.
      response.setHeader('connection', 'close');
      throw new OciError(405, 'UNSUPPORTED', 'this cache is read only', { allow: 'GET, HEAD' });
    }
    const target = readTarget(url);
    subject = subjects[target.kind];
    if (target.kind === 'base') {
      if (request.headers.authorization === undefined) {
        throw new OciError(401, 'UNAUTHORIZED', 'authentication required', door.challenge(request));
      }
      send(response, request, 200, { 'content-type': 'application/json' }, Buffer.from('{}'));
      return;
    }
    await serveTarget(deps, target, { url, request, response, credentials, signal });
  } catch (error) {
    if (signal.aborted) return;
    if (response.headersSent) {
      // The status is gone: a short body is the only way left to say it.
      deps.log.warn({ err: error }, 'registry answer broken off');
      response.destroy();
      return;
    }
    const told = toOciError(error, subject);
    // So that the client sends credentials for the registry behind, which are passed on.
    if (told?.status === 401)
      for (const [name, text] of Object.entries(door.challenge(request))) response.setHeader(name, text);
    if (told === undefined) deps.log.error({ err: error, path: request.url }, 'registry request failed');
    refuse(response, told ?? new OciError(500, 'UNKNOWN', 'internal error'));
  }
}

async function serveTarget(
  deps: DistributionDeps,
  target: Exclude<RequestTarget, { kind: 'base' }>,
  exchange: Exchange,
): Promise<void> {
  const { url, request, response, credentials, signal } = exchange;
  const { repository, name } = target;
  switch (target.kind) {
    case 'manifest':
      return serveManifest(deps, repository, target.target, exchange);
    case 'blob':
      return serveBlob(deps, repository, target.digest, exchange);
    case 'tags': {
      const tags = await listTags(deps.client, repository, credentials, signal);
      const { page, next } = pageOf(tags, url.searchParams);
      const link = new URLSearchParams(next);
      const namespace = url.searchParams.get('ns');
      if (namespace !== null) link.set('ns', namespace);
      const headers = {
        'content-type': 'application/json',
        ...(next === undefined ? {} : { link: `</v2/${name}/tags/list?${link.toString()}>; rel="next"` }),
      };
      send(response, request, 200, headers, Buffer.from(JSON.stringify({ name, tags: page })));
      return;
    }
    case 'referrers': {
      const artifactType = url.searchParams.get('artifactType');
      const index = await listReferrers(deps, repository, target.digest, credentials, artifactType, signal);
      const filtered = artifactType === null ? {} : { 'oci-filters-applied': 'artifactType' };
      send(response, request, 200, { 'content-type': mediaTypes.ociIndex, ...filtered }, index);
    }
  }
}

async function serveManifest(
  { manifests }: DistributionDeps,
  repository: Reference,
  target: string,
  { request, response, credentials, signal }: Exchange,
): Promise<void> {
  const { mediaType, digest, content, warnings } = await manifests.fetch({ repository, target, credentials, signal });
  const headers = {
    'content-type': mediaType,
    'docker-content-digest': digest,
    etag: `"${digest}"`,
    ...(warnings.length === 0 ? {} : { warning: warnings.map((text) => `299 - ${quoted(text)}`).join(', ') }),
  };
  if (request.headers['if-none-match'] === headers.etag) {
    response.writeHead(304, headers).end();
    return;
  }
  send(response, request, 200, headers, content);
}

async function serveBlob(
  { transfers, cache }: DistributionDeps,
  repository: Reference,
  digest: Digest,
  { request, response, credentials, signal }: Exchange,
): Promise<void> {
  const wanted = { repository, digest, size: 0, credentials };
  const headers = {
    'content-type': 'application/octet-stream',
    'docker-content-digest': digest,
    'accept-ranges': 'bytes',
    etag: `"${digest}"`,
    // What a digest names is the same for ever, but who may have it is not.
    'cache-control': 'private, max-age=31536000',
  };
  if (request.method === 'HEAD') {
    const size = await transfers.sizeOf(wanted, signal);
    response.writeHead(200, { ...headers, ...(size === undefined ? {} : { 'content-length': size }) }).end();
    return;
  }
  await transfers.fetch(
    wanted,
    () => undefined,
    signal,
    async ({ size }) => {
      const range = readRange(request.headers.range, size);
      if (range === undefined) {
        throw new OciError(416, 'RANGE_INVALID', 'nothing of the range is there', {
          'content-range': `bytes */${size}`,
        });
      }
      const { start, end } = range;
      const isPart = end - start < size;
      response.writeHead(isPart ? 206 : 200, {
        ...headers,
        'content-length': end - start,
        ...(isPart ? { 'content-range': `bytes ${start}-${end - 1}/${size}` } : {}),
      });
      if (size === 0) {
        response.end();
        return;
      }
      response.setTimeout(idleReaderMs, () => response.destroy());
      await pipeline(Readable.from(cache.read(digest, start, end)), response);
    },
  );
}

/** `n` tags after `last`, in their order, and the query of the next page. */
function pageOf(
  tags: readonly string[],
  query: URLSearchParams,
): { page: readonly string[]; next: Record<string, string> | undefined } {
  const count = query.get('n');
  if (count !== null && !/^\d{1,6}$/.test(count)) {
    throw new OciError(400, 'PAGINATION_NUMBER_INVALID', 'invalid number of results requested');
  }
  const last = query.get('last');
  const rest = [...tags].sort(byBytes).filter((tag) => last === null || byBytes(tag, last) > 0);
  if (count === null) return { page: rest, next: undefined };
  const page = rest.slice(0, Number(count));
  const end = page.at(-1);
  return { page, next: end === undefined || page.length === rest.length ? undefined : { n: count, last: end } };
}

const byBytes = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0);

function readUrl(text = '/'): URL {
  try {
    // `//host/path` is a path here, never another host.
    return new URL(`http://localhost${text.startsWith('/') ? '' : '/'}${text}`);
  } catch {
    throw new OciError(400, 'NAME_INVALID', 'invalid path');
  }
}

function send(
  response: ServerResponse,
  { method }: IncomingMessage,
  status: number,
  headers: Readonly<Record<string, string>>,
  body: Buffer,
): void {
  response.writeHead(status, { ...headers, 'content-length': body.length });
  response.end(method === 'HEAD' ? undefined : body);
}

function refuse(response: ServerResponse, error: OciError): void {
  const body = Buffer.from(error.body);
  response.writeHead(error.status, {
    ...error.headers,
    'content-type': 'application/json',
    'content-length': body.length,
  });
  response.end(body);
}

const quoted = (text: string): string => `"${text.replaceAll(/[^\x20-\x7e]/g, '?').replaceAll(/["\\]/g, '\\$&')}"`;
