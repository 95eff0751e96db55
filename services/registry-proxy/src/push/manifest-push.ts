import { sha256Of } from '@flotilla/oci';
import type { Digest, Reference } from '@flotilla/oci';
import type { Credentials } from '../upstream/credentials.js';
import { discard } from '../upstream/http-transport.js';
import type { RegistryClient } from '../upstream/registry-client.js';
import { isRetryable } from '../upstream/registry-error.js';
import { backoff } from '../upstream/retry.js';
import type { RetryRules } from '../upstream/retry.js';
import { checkStoredDigest, pushScope } from './pushed-content.js';

export interface ManifestPush {
  readonly repository: Reference;
  /** Tag or digest. */
  readonly target: string;
  readonly mediaType: string;
  readonly content: Buffer;
  readonly credentials: Credentials | undefined;
}

/**
 * Put a manifest or index, byte for byte; gives its digest. Putting it twice changes nothing, so it is tried again.
 *
 * @throws RegistryError, TransportError; EngineError `dataLoss` when the registry stored something else.
 */
export async function pushManifest(
  client: RegistryClient,
  retry: RetryRules,
  push: ManifestPush,
  signal: AbortSignal,
): Promise<Digest> {
  const { repository, target, mediaType, content, credentials } = push;
  const digest = sha256Of(content);
  for (let attempt = 1; ; attempt += 1) {
    try {
      const response = await client.withOrigin(
        repository.domain,
        signal,
        (registry) =>
          client.request(registry, {
            method: 'PUT',
            path: `${repository.path}/manifests/${target}`,
            headers: { 'content-type': mediaType },
            body: { size: content.length, read: () => once(content) },
            scope: pushScope(repository),
            credentials,
            signal,
          }),
        'push',
      );
      await discard(response.body);
      checkStoredDigest(response, digest);
      return digest;
    } catch (error) {
      if (attempt >= retry.attempts || !isRetryable(error)) throw error;
      await backoff(retry, attempt, error, signal);
    }
  }
}

async function* once(bytes: Buffer): AsyncGenerator<Buffer> {
  await Promise.resolve();
  yield bytes;
}
