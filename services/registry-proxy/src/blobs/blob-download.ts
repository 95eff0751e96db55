import { dataLoss, isEngineError } from '@flotilla/errors';
import type { Digest, Reference } from '@flotilla/oci';
import type { Credentials } from '../upstream/credentials.js';
import { discard } from '../upstream/http-transport.js';
import type { HttpResponse } from '../upstream/http-transport.js';
import { pullScope } from '../upstream/manifests.js';
import type { RegistryClient } from '../upstream/registry-client.js';
import { TransportError, isRetryable } from '../upstream/registry-error.js';
import { backoff, retryDelayMs } from '../upstream/retry.js';
import type { RetryRules } from '../upstream/retry.js';
import { requestName, toTransportError } from '../upstream/transport-error.js';
import type { BlobWriter } from './blob-writer.js';

export interface BlobRequest {
  readonly repository: Reference;
  readonly digest: Digest;
  /** 0 if unknown. */
  readonly size: number;
  readonly credentials: Credentials | undefined;
}

/** Where a transfer stands. */
export interface BlobProgress {
  readonly current: number;
  /** 0 if unknown. */
  readonly total: number;
  /** e.g. "Retrying in 5 seconds"; empty while bytes come. */
  readonly status: string;
  /** The file that grows; absent where there is none. */
  readonly partial?: { readonly written: number; readonly generation: number };
}

export interface DownloadDeps {
  readonly client: RegistryClient;
  readonly retry: RetryRules;
}

// A try that brought this much counts as a new start: a large blob over a poor line ends some time.
const worthwhileBytes = 1024 * 1024;
/** Every report is a message to another process: one per piece that comes would cost more than the piece. */
const reportEveryBytes = 1024 * 1024;
const reportEveryMs = 100;

/**
 * Bring a blob into `writer`, resuming what it holds, with retries; returns the bytes that came from the network.
 *
 * @throws EngineError `dataLoss` when the whole blob has another digest or more bytes than it should;
 * RegistryError or TransportError when the registry refuses or the tries are used up.
 */
export async function downloadBlob(
  deps: DownloadDeps,
  request: BlobRequest,
  writer: BlobWriter,
  report: (progress: BlobProgress) => void,
  signal: AbortSignal,
): Promise<number> {
  const counter = { transferred: 0 };
  for (let attempt = 1; ; attempt += 1) {
    const before = writer.size;
    try {
      await transferOnce(deps, request, writer, report, signal, counter);
      if ((await writer.digest()) === request.digest) return counter.transferred;
      await writer.restart();
      // What was resumed may have been wrong: one fresh try.
      if (before > 0 && attempt === 1) continue;
      throw verificationFailed(request.digest);
    } catch (error) {
      signal.throwIfAborted();
      if (isEngineError(error) || !isRetryable(error)) throw error;
      if (writer.size - before >= worthwhileBytes) attempt = 1;
      if (attempt >= deps.retry.attempts) throw error;
      const state = { current: writer.size, total: request.size, partial: writer.partial };
      await announceAndWait(deps.retry, attempt, error, report, state, signal);
    }
  }
}

async function announceAndWait(
  retry: RetryRules,
  attempt: number,
  error: unknown,
  report: (progress: BlobProgress) => void,
  state: Omit<BlobProgress, 'status'>,
  signal: AbortSignal,
): Promise<void> {
  const seconds = Math.max(1, Math.round(retryDelayMs(retry, attempt, error) / 1000));
  report({ ...state, status: `Retrying in ${seconds} ${seconds === 1 ? 'second' : 'seconds'}` });
  await backoff(retry, attempt, error, signal);
}

async function transferOnce(
  { client }: DownloadDeps,
  request: BlobRequest,
  writer: BlobWriter,
  report: (progress: BlobProgress) => void,
  signal: AbortSignal,
  counter: { transferred: number },
): Promise<void> {
  const { repository, digest, size, credentials } = request;
  if (size > 0 && writer.size > size) await writer.restart();
  if (size > 0 && writer.size === size) return;
  await client.withRegistry(repository.domain, signal, async (registry) => {
    const offset = writer.size;
    const response = await client.request(registry, {
      method: 'GET',
      path: `${repository.path}/blobs/${digest}`,
      // Compressed transfer of a compressed blob gains nothing and would change the bytes.
      headers: { 'accept-encoding': 'identity', ...(offset > 0 ? { range: `bytes=${offset}-` } : {}) },
      scope: pullScope(repository),
      credentials,
      signal,
    });
    const start = await startOf(response, offset);
    if (start === 'complete') return;
    if (start === 'again') {
      await writer.restart();
      throw new TransportError('the registry does not resume the blob', { isRetryable: true });
    }
    if (start === 'whole') await writer.restart();
    const stated = wholeSizeOf(response);
    if (size > 0 && stated !== undefined && stated !== size) {
      // Neither what is missing nor what is too much would change by another try.
      await discard(response.body);
      throw verificationFailed(digest);
    }
    const total = size > 0 ? size : writer.size + Number(response.headers.get('content-length') ?? 0);
    let told = -1;
    const tell = (): void => {
      if (told === writer.partial.written) return;
      told = writer.partial.written;
      report({ current: writer.size, total, status: '', partial: writer.partial });
    };
    tell();
    const timer = setInterval(tell, reportEveryMs);
    try {
      for await (const chunk of response.body as AsyncIterable<Buffer>) {
        if (size > 0 && writer.size + chunk.length > size) {
          await writer.restart();
          throw verificationFailed(digest);
        }
        counter.transferred += chunk.length;
        await writer.write(chunk);
        if (writer.partial.written - told >= reportEveryBytes) tell();
      }
    } catch (error) {
      signal.throwIfAborted();
      throw isEngineError(error) ? error : toTransportError(error, 'GET', response.url);
    } finally {
      clearInterval(timer);
    }
    if (size > 0 && writer.size < size) {
      throw new TransportError(`${requestName('GET', response.url)}: unexpected EOF`, { isRetryable: true });
    }
  });
}

/** What the answer to a request from `offset` on brings. The body of anything but bytes is let go. */
async function startOf(response: HttpResponse, offset: number): Promise<'resumed' | 'whole' | 'complete' | 'again'> {
  if (response.status === 206) {
    const range = /^bytes (\d+)-/.exec(response.headers.get('content-range') ?? '');
    if (Number(range?.[1]) === offset) return 'resumed';
    await discard(response.body);
    return 'again';
  }
  if (response.status === 416) {
    await discard(response.body);
    // Nothing is left after `offset`: either all is here, or what is here is not this blob.
    const length = /^bytes \*\/(\d+)$/.exec(response.headers.get('content-range') ?? '');
    return length === null || Number(length[1]) === offset ? 'complete' : 'again';
  }
  return offset > 0 ? 'whole' : 'resumed';
}

/** Size of the whole blob as the answer has it; undefined if it does not say. */
function wholeSizeOf({ status, headers }: HttpResponse): number | undefined {
  const text =
    status === 206
      ? /^bytes \d+-\d+\/(\d+)$/.exec(headers.get('content-range') ?? '')?.[1]
      : headers.get('content-length');
  return text === undefined ? undefined : Number(text);
}

/** In Docker's words. */
export const verificationFailed = (digest: Digest) =>
  dataLoss(`filesystem layer verification failed for digest ${digest}`);
