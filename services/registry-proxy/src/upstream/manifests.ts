import { dataLoss, internal } from '@flotilla/errors';
import { acceptedManifestTypes, isDigest, maxManifestBytes, sha256Of } from '@flotilla/oci';
import type { Digest, Reference } from '@flotilla/oci';
import type { Credentials } from './credentials.js';
import { discard, readBounded } from './http-transport.js';
import type { HttpResponse } from './http-transport.js';
import type { RegistryClient } from './registry-client.js';
import { TransportError, isRetryable } from './registry-error.js';
import { backoff } from './retry.js';
import type { RetryRules } from './retry.js';
import { toTransportError } from './transport-error.js';

/** A manifest or index as the registry has it. */
export interface FetchedManifest {
  readonly mediaType: string;
  readonly digest: Digest;
  readonly content: Buffer;
}

export interface ManifestRequest {
  readonly repository: Reference;
  /** Tag or digest. */
  readonly target: string;
  readonly credentials: Credentials | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** Manifests from registries, verified. */
export class Manifests {
  readonly #client: RegistryClient;
  readonly #retry: RetryRules;

  constructor(client: RegistryClient, retry: RetryRules) {
    this.#client = client;
    this.#retry = retry;
  }

  /**
   * `canDoWithout`: the caller has another answer; a registry that fails is not asked again and again.
   *
   * @throws RegistryError, TransportError, or EngineError `dataLoss` when the bytes are not those of the digest.
   */
  async fetch(request: ManifestRequest, canDoWithout = false): Promise<FetchedManifest> {
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await this.#fetchOnce(request, canDoWithout);
      } catch (error) {
        // A registry that cannot be reached or does not answer is told of at once, as by dockerd.
        const isSilent = error instanceof TransportError && (error.isUnreachable || error.isTimeout);
        const isHopeless = !isRetryable(error) || isSilent || canDoWithout;
        if (attempt >= this.#retry.attempts || isHopeless) throw error;
        await backoff(this.#retry, attempt, error, request.signal);
      }
    }
  }

  /** What the registry says that the tag or digest stands for; undefined if it does not say. */
  digestOf(request: ManifestRequest, canDoWithout: boolean): Promise<string | undefined> {
    return this.#ask('HEAD', request, canDoWithout, async (response) => {
      await discard(response.body);
      return isDigest(request.target) ? request.target : response.headers.get('docker-content-digest');
    });
  }

  #fetchOnce(request: ManifestRequest, canDoWithout: boolean): Promise<FetchedManifest> {
    const { target, signal } = request;
    return this.#ask('GET', request, canDoWithout, async (response) => {
      let content: Buffer | undefined;
      try {
        content = await readBounded(response.body, maxManifestBytes);
      } catch (error) {
        signal?.throwIfAborted();
        throw toTransportError(error, 'GET', response.url);
      }
      if (content === undefined) {
        throw internal(`manifest of ${target} is larger than ${maxManifestBytes} bytes`, { isOutside: true });
      }
      const digest = sha256Of(content);
      const stated = isDigest(target) ? target : response.headers.get('docker-content-digest');
      if (stated?.startsWith('sha256:') === true && stated !== digest) {
        throw dataLoss(`manifest verification failed for digest ${stated}`);
      }
      return { mediaType: mediaTypeOf(response.headers.get('content-type')), digest, content };
    });
  }

  #ask<T>(
    method: 'GET' | 'HEAD',
    { repository, target, credentials, signal }: ManifestRequest,
    canDoWithout: boolean,
    read: (response: HttpResponse) => Promise<T>,
  ): Promise<T> {
    return this.#client.withRegistry(
      repository.domain,
      signal,
      async (registry) => {
        const response = await this.#client.request(registry, {
          method,
          path: `${repository.path}/manifests/${target}`,
          headers: { accept: acceptedManifestTypes.join(', ') },
          scope: pullScope(repository),
          credentials,
          ...(canDoWithout ? { headersTimeoutMs: this.#client.impatientMs } : {}),
          signal,
        });
        return read(response);
      },
      { capability: isDigest(target) ? 'pull' : 'resolve', canDoWithout },
    );
  }
}

/** Token scope to read a repository. */
export function pullScope({ path }: Reference): string {
  return `repository:${path}:pull`;
}

function mediaTypeOf(contentType = ''): string {
  return (contentType.split(';')[0] ?? '').trim().slice(0, 255);
}
