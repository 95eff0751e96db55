import { randomUUID } from 'node:crypto';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { isEngineError, unavailable } from '@flotilla/errors';
import { maxManifestBytes, parseDigest, repositoryName } from '@flotilla/oci';
import type { Descriptor, Digest, Reference } from '@flotilla/oci';
import type { common, registry } from '@flotilla/proto';
import type { TypedClient } from '@flotilla/rpc';
import type { ContentStore } from '../content/content-store.js';
import { GrowingBlob } from '../layers/index.js';
import { SharedTasks } from './shared-tasks.js';

export interface SourceManifest {
  readonly mediaType: string;
  readonly digest: Digest;
  readonly content: Buffer;
  readonly warnings: readonly string[];
}

export interface FetchProgress {
  readonly current: number;
  readonly total: number;
  /** e.g. "Retrying in 5 seconds"; empty while bytes come. */
  readonly status: string;
  /** The blob as far as it has come; always the same one for a transfer. undefined: nothing can be read yet. */
  readonly growing?: GrowingBlob | undefined;
}

export type RegistryRpc = TypedClient<typeof registry.RegistryServiceService>;
export type Credentials = common.RegistryCredentials | undefined;

/** Smaller ones have come before a thread is ready to read them. */
const followFromBytes = 1024 * 1024;
const manifestDeadlineMs = 120_000;
/** How long a registry-proxy that restarts is waited for; it resumes what it had. */
const proxyOutageMs = 30_000;

/** Manifests and blobs, brought by registry-proxy. */
export class RegistrySource {
  readonly #rpc: RegistryRpc;
  readonly #content: ContentStore;
  readonly #exchangeDir: string;
  readonly #fetches = new SharedTasks<FetchProgress, void>();

  /** `exchangeDir`: where registry-proxy leaves links for the taking. */
  constructor(rpc: RegistryRpc, content: ContentStore, exchangeDir: string) {
    this.#rpc = rpc;
    this.#content = content;
    this.#exchangeDir = exchangeDir;
  }

  /** @throws EngineError as the registry refused, in Docker's words. */
  async manifest(
    repository: Reference,
    target: string,
    credentials: Credentials,
    signal: AbortSignal,
  ): Promise<SourceManifest> {
    const answer = await this.#rpc.resolveManifest(
      { repository: repositoryName(repository), reference: target, credentials },
      { deadlineMs: manifestDeadlineMs, signal },
    );
    if (answer.content.length > maxManifestBytes) throw unavailable('the registry sent too large a manifest');
    const { mediaType, content, warnings } = answer;
    return { mediaType, digest: parseDigest(answer.digest), content, warnings };
  }

  /** Tags of a repository. */
  async tags(repository: Reference, credentials: Credentials, signal: AbortSignal): Promise<string[]> {
    const request = { repository: repositoryName(repository), credentials };
    return (await this.#rpc.listTags(request, { deadlineMs: manifestDeadlineMs, signal })).tags;
  }

  /** Have the blob in the content store; concurrent callers share one transfer. The caller holds the digest in the catalog. */
  async fetch(
    repository: Reference,
    blob: Descriptor,
    credentials: Credentials,
    report: (progress: FetchProgress) => void,
    signal: AbortSignal,
  ): Promise<void> {
    if (this.#content.has(blob.digest)) return;
    await this.#fetches.join(blob.digest, report, signal, (tell, stop) =>
      this.#fetch(repository, blob, credentials, tell, stop),
    );
  }

  /** Tell registry-proxy that the blobs are recorded here: it need not keep its copies for another try. */
  forget(digests: readonly Digest[]): void {
    const options = { deadlineMs: 5_000, retryUnavailableMs: 0 };
    // What it does not hear of it drops by its own bound.
    this.#rpc.forgetBlobs({ digests: [...digests], corrupt: false }, options).catch(() => undefined);
  }

  /** Have registry-proxy check its copy of a corrupt blob before it gives it again: both may be one file. */
  async distrust(digest: Digest): Promise<void> {
    const options = { deadlineMs: 5_000, retryUnavailableMs: 0 };
    // One that starts again checks everything anyway.
    await this.#rpc.forgetBlobs({ digests: [digest], corrupt: true }, options).catch(() => undefined);
  }

  async #fetch(
    repository: Reference,
    blob: Descriptor,
    credentials: Credentials,
    report: (progress: FetchProgress) => void,
    signal: AbortSignal,
  ): Promise<void> {
    const { digest } = blob;
    if (this.#content.has(digest)) return;
    const growing = new GrowingBlob(blob.size);
    let outageEnds: number | undefined;
    try {
      for (;;) {
        const exchangeName = randomUUID();
        try {
          for await (const { event } of this.#transfer(repository, blob, credentials, exchangeName, signal)) {
            outageEnds = undefined;
            if (event?.$case === 'progress') report(progressOf(event.value, growing, exchangeName));
            else if (event?.$case === 'done') {
              await this.#content.adopt(digest, event.value.path);
              growing.finish(this.#content.path(digest), Number(event.value.sizeBytes));
              return;
            }
          }
          throw unavailable('registry-proxy ended a transfer early');
        } catch (error) {
          // The link may lie there although its message did not come through.
          await rm(join(this.#exchangeDir, exchangeName), { force: true });
          signal.throwIfAborted();
          // Only registry-proxy's own death is `unavailable`: a registry's failure comes as another kind.
          if (!isEngineError(error, 'unavailable')) throw error;
          outageEnds ??= Date.now() + proxyOutageMs;
          if (Date.now() > outageEnds) throw error;
        }
      }
    } catch (error) {
      growing.fail(error);
      throw error;
    }
  }

  #transfer(
    repository: Reference,
    { digest, size, urls }: Descriptor,
    credentials: Credentials,
    exchangeName: string,
    signal: AbortSignal,
  ): AsyncIterable<registry.FetchBlobResponse> {
    return this.#rpc.fetchBlob(
      {
        repository: repositoryName(repository),
        digest,
        sizeBytes: BigInt(size),
        credentials,
        urls: [...urls],
        stream: false,
        follow: size >= followFromBytes,
        exchangeName,
      },
      { signal },
    );
  }
}

/** What registry-proxy told, for the listeners and for who reads the blob meanwhile. */
function progressOf(
  { currentBytes, totalBytes, status, partial }: registry.FetchProgress,
  growing: GrowingBlob,
  exchangeName: string,
): FetchProgress {
  if (partial !== undefined) {
    growing.advance(partial.path, Number(partial.writtenBytes), `${exchangeName} ${partial.generation}`);
  }
  return {
    current: Number(currentBytes),
    total: Number(totalBytes),
    status,
    growing: growing.available > 0 ? growing : undefined,
  };
}
