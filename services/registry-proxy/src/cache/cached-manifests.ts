import type { Logger } from '@flotilla/log';
import { isDigest, repositoryName } from '@flotilla/oci';
import { fingerprint } from '../upstream/credentials.js';
import type { FetchedManifest, ManifestRequest, Manifests } from '../upstream/manifests.js';
import { isOutage } from '../upstream/registry-error.js';
import type { CacheIndex } from './cache-index.js';
import { SharedRequests } from './shared-requests.js';

/** A manifest, and what the user should know about where it came from. */
export interface AnsweredManifest extends FetchedManifest {
  readonly warnings: readonly string[];
}

interface CachedAnswer {
  readonly manifest: FetchedManifest;
  /** When the registry last said that the tag stands for it; undefined for a digest. */
  readonly atMs: number | undefined;
}

/**
 * Manifests by way of the cache. The registry is always asked, so that a tag is as new as it is there and only who may
 * read it does: but only whether it is still the one that is here. When the registry cannot answer (silence, 429, 5xx), the
 * cache does, for those whom the registry let read this manifest before.
 */
export class CachedManifests {
  readonly #manifests: Manifests;
  readonly #index: CacheIndex;
  readonly #log: Logger;
  readonly #requests = new SharedRequests<AnsweredManifest>();

  constructor(manifests: Manifests, index: CacheIndex, log: Logger) {
    this.#manifests = manifests;
    this.#index = index;
    this.#log = log;
  }

  /** @throws As `Manifests.fetch`. */
  fetch(request: ManifestRequest): Promise<AnsweredManifest> {
    const { repository, target, credentials, signal } = request;
    const key = JSON.stringify([repositoryName(repository), target, fingerprint(credentials)]);
    return this.#requests.join(key, signal, (shared) => this.#fetch({ ...request, signal: shared }));
  }

  async #fetch(request: ManifestRequest): Promise<AnsweredManifest> {
    const { repository, target, credentials, signal } = request;
    const cached = await this.#cached(request);
    const isFallback =
      cached !== undefined && (await this.#index.isAllowed(repository, credentials, cached.manifest.digest));
    try {
      const manifest = await this.#ask(request, cached?.manifest, isFallback);
      await this.#index.rememberManifest(repository, target, credentials, manifest);
      return { ...manifest, warnings: [] };
    } catch (error) {
      signal?.throwIfAborted();
      if (!isFallback || !isOutage(error)) throw error;
      this.#log.warn(
        { repository: repositoryName(repository), target, err: error },
        'manifest answered from the cache',
      );
      return { ...cached.manifest, warnings: warningsOf(request, cached, error) };
    }
  }

  async #cached({ repository, target }: ManifestRequest): Promise<CachedAnswer | undefined> {
    try {
      const tag = isDigest(target) ? undefined : await this.#index.tag(repository, target);
      const manifest = await this.#index.manifest(tag?.digest ?? target);
      return manifest === undefined ? undefined : { manifest, atMs: tag?.atMs };
    } catch (err) {
      this.#log.warn({ err }, 'registry cache not read');
      return undefined;
    }
  }

  /** What is here need not come again if the registry says that it is the same. */
  async #ask(
    request: ManifestRequest,
    cached: FetchedManifest | undefined,
    canDoWithout: boolean,
  ): Promise<FetchedManifest> {
    if (cached !== undefined) {
      try {
        if ((await this.#manifests.digestOf(request, canDoWithout)) === cached.digest) return cached;
      } catch (error) {
        // The answer to HEAD has no words: a refusal is told by GET.
        if (isOutage(error) && canDoWithout) throw error;
        request.signal?.throwIfAborted();
      }
    }
    return this.#manifests.fetch(request, canDoWithout);
  }
}

function warningsOf({ repository, target }: ManifestRequest, { atMs }: CachedAnswer, error: unknown): string[] {
  // What a digest names is the same for ever.
  if (atMs === undefined) return [];
  const reason = error instanceof Error ? error.message : 'no answer';
  const asOf = new Date(atMs).toISOString().replace(/\.\d+Z$/, 'Z');
  return [`WARNING: ${repository.domain} does not answer for ${target} (${reason}): using the cached one of ${asOf}`];
}
