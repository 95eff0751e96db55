import { repositoryName } from '@flotilla/oci';
import type { Digest, Reference } from '@flotilla/oci';
import { raceSignal } from '../race-signal.js';
import { fingerprint } from '../upstream/credentials.js';
import type { Credentials } from '../upstream/credentials.js';
import { discard } from '../upstream/http-transport.js';
import { pullScope } from '../upstream/manifests.js';
import type { ReachedRegistry } from '../upstream/registry-client.js';
import { isOutage } from '../upstream/registry-error.js';
import type { BlobCache } from './blob-cache.js';
import { downloadBlob, verificationFailed } from './blob-download.js';
import type { BlobProgress, BlobRequest, DownloadDeps } from './blob-download.js';
import type { BlobWriters } from './blob-writer.js';

/** Whom registries let read what. */
export interface BlobAccess {
  allow(repository: Reference, credentials: Credentials | undefined, digest: Digest): Promise<void>;
  isAllowed(repository: Reference, credentials: Credentials | undefined, digest: Digest): Promise<boolean>;
}

export interface TransferDeps extends DownloadDeps {
  readonly cache: BlobCache;
  readonly access: BlobAccess;
  readonly writers: BlobWriters;
}

export interface BlobResult {
  readonly size: number;
  /** Bytes that came from the network for this digest's transfer; 0 when cached. */
  readonly transferred: number;
}

/** Fetches blobs into the cache: one transfer per digest however many ask; it ends when nobody waits any more. */
export class BlobTransfers {
  readonly #deps: TransferDeps;
  readonly #running = new Map<Digest, Transfer>();

  constructor(deps: TransferDeps) {
    this.#deps = deps;
  }

  /**
   * Bring the blob into the cache and keep it there while `use` runs. A caller that did not fetch it itself must be one
   * whom the registry lets read it, or did before if it cannot be asked now. Cancelling ends only this caller's wait; a transfer that nobody waits for stops and
   * keeps what it has.
   */
  async fetch<T>(
    request: BlobRequest,
    report: (progress: BlobProgress) => void,
    signal: AbortSignal,
    use: (result: BlobResult) => Promise<T>,
  ): Promise<T> {
    const { cache } = this.#deps;
    try {
      return await cache.pinned(request.digest, async () => use(await this.#bring(request, report, signal)));
    } finally {
      cache.evictSoon();
    }
  }

  /** Size of a blob that the registry lets the caller read, without fetching it; undefined if the registry does not say. */
  async sizeOf(request: BlobRequest, signal: AbortSignal): Promise<number | undefined> {
    const cached = await this.#deps.cache.size(request.digest);
    const stated = await this.#checkAccess(request, signal);
    return cached ?? stated;
  }

  async #bring(request: BlobRequest, report: Report, signal: AbortSignal): Promise<BlobResult> {
    const access = `${repositoryName(request.repository)} ${fingerprint(request.credentials)}`;
    for (;;) {
      let transfer = this.#running.get(request.digest);
      if (transfer === undefined) {
        const size = await this.#deps.cache.size(request.digest);
        if (size !== undefined) {
          await this.#checkAccess(request, signal);
          if (request.size > 0 && request.size !== size) throw verificationFailed(request.digest);
          return { size, transferred: 0 };
        }
        // Another caller may have begun while this one looked.
        transfer = this.#running.get(request.digest) ?? this.#start(request, access);
      }
      if (transfer.access !== access) await this.#checkAccess(request, signal);
      try {
        const result = await transfer.join(report, signal);
        // Undefined: it was given up in the moment of joining.
        if (result !== undefined) return result;
      } catch (error) {
        signal.throwIfAborted();
        // It may have failed because of who began it.
        if (transfer.access === access) throw error;
        if (this.#running.get(request.digest) === transfer) this.#running.delete(request.digest);
      }
    }
  }

  #start(request: BlobRequest, access: string): Transfer {
    const transfer = new Transfer(access, (report, signal) => this.#download(request, report, signal));
    this.#running.set(request.digest, transfer);
    void transfer.ended.then(() => {
      if (this.#running.get(request.digest) === transfer) this.#running.delete(request.digest);
    });
    return transfer;
  }

  async #download(request: BlobRequest, report: Report, signal: AbortSignal): Promise<BlobResult> {
    const { cache, writers, access } = this.#deps;
    return cache.pinned(request.digest, async () => {
      await cache.makeRoom(request.size);
      const writer = await writers.open(cache.partialPath(request.digest));
      let transferred: number;
      try {
        transferred = await downloadBlob(this.#deps, request, writer, report, signal);
      } finally {
        await writer.close();
      }
      await cache.complete(request.digest);
      // Whole since before: the registry has not been asked for this caller yet.
      if (transferred === 0) await this.#checkAccess(request, signal);
      else await access.allow(request.repository, request.credentials, request.digest);
      return { size: writer.size, transferred };
    });
  }

  /** Gives the size that the registry stated, if it could be asked and did. */
  async #checkAccess(
    { repository, digest, credentials }: BlobRequest,
    signal: AbortSignal,
  ): Promise<number | undefined> {
    const { client, access } = this.#deps;
    const wasAllowed = await access.isAllowed(repository, credentials, digest);
    const ask = async (registry: ReachedRegistry): Promise<number | undefined> => {
      const response = await client.request(registry, {
        method: 'HEAD',
        path: `${repository.path}/blobs/${digest}`,
        scope: pullScope(repository),
        credentials,
        ...(wasAllowed ? { headersTimeoutMs: client.impatientMs } : {}),
        signal,
      });
      await discard(response.body);
      const length = response.headers.get('content-length');
      return length === undefined ? undefined : Number(length);
    };
    try {
      const size = await client.withRegistry(repository.domain, signal, ask, { canDoWithout: wasAllowed });
      await access.allow(repository, credentials, digest);
      return size;
    } catch (error) {
      signal.throwIfAborted();
      if (!wasAllowed || !isOutage(error)) throw error;
      return undefined;
    }
  }
}

type Report = (progress: BlobProgress) => void;

class Transfer {
  readonly access: string;
  /** Resolves, never rejects, when it is over in whatever way. */
  readonly ended: Promise<void>;
  readonly #result: Promise<BlobResult>;
  readonly #abort = new AbortController();
  readonly #reports = new Set<Report>();
  #last: BlobProgress | undefined;

  constructor(access: string, run: (report: Report, signal: AbortSignal) => Promise<BlobResult>) {
    this.access = access;
    this.#result = run((progress) => {
      this.#last = progress;
      for (const report of this.#reports) report(progress);
    }, this.#abort.signal);
    this.ended = this.#result.then(
      () => undefined,
      () => undefined,
    );
  }

  async join(report: Report, signal: AbortSignal): Promise<BlobResult | undefined> {
    if (this.#abort.signal.aborted) {
      await this.ended;
      return undefined;
    }
    this.#reports.add(report);
    if (this.#last !== undefined) report(this.#last);
    try {
      return await raceSignal(this.#result, signal);
    } finally {
      this.#reports.delete(report);
      if (this.#reports.size === 0) this.#abort.abort(new Error('nobody waits for the blob'));
    }
  }
}
