import { isEngineError } from '@flotilla/errors';
import { mediaTypes } from '@flotilla/oci';
import type { Digest, Reference } from '@flotilla/oci';
import type { CachedManifests } from '../cache/cached-manifests.js';
import type { Credentials } from '../upstream/credentials.js';
import { readBounded } from '../upstream/http-transport.js';
import { pullScope } from '../upstream/manifests.js';
import type { RegistryClient } from '../upstream/registry-client.js';
import { RegistryError } from '../upstream/registry-error.js';
import { OciError } from './oci-error.js';

const maxIndexBytes = 4 * 1024 * 1024;

/** What refers to a manifest: an image index (OCI distribution spec, "Listing Referrers"), of one artifact type if asked. */
export async function listReferrers(
  { client, manifests }: { readonly client: RegistryClient; readonly manifests: CachedManifests },
  repository: Reference,
  digest: Digest,
  credentials: Credentials | undefined,
  artifactType: string | null,
  signal: AbortSignal,
): Promise<Buffer> {
  const found =
    (await fromRegistry(client, repository, digest, credentials, signal)) ??
    (await fromTag(manifests, repository, digest, credentials, signal));
  let index: { manifests?: unknown };
  try {
    index = (found === undefined ? {} : JSON.parse(found.toString('utf8'))) as { manifests?: unknown };
  } catch {
    throw new OciError(502, 'MANIFEST_INVALID', 'the registry sent a list of referrers that is no JSON');
  }
  const all: unknown[] = Array.isArray(index.manifests) ? index.manifests : [];
  const wanted = artifactType === null ? all : all.filter((it) => artifactTypeOf(it) === artifactType);
  return Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: mediaTypes.ociIndex, manifests: wanted }));
}

const artifactTypeOf = (descriptor: unknown): unknown =>
  typeof descriptor === 'object' && descriptor !== null
    ? (descriptor as { artifactType?: unknown }).artifactType
    : undefined;

/** Undefined where the registry does not have the API. */
async function fromRegistry(
  client: RegistryClient,
  repository: Reference,
  digest: Digest,
  credentials: Credentials | undefined,
  signal: AbortSignal,
): Promise<Buffer | undefined> {
  try {
    return await client.withRegistry(repository.domain, signal, async (registry) => {
      const response = await client.request(registry, {
        method: 'GET',
        path: `${repository.path}/referrers/${digest}`,
        headers: { accept: mediaTypes.ociIndex },
        scope: pullScope(repository),
        credentials,
        signal,
      });
      const body = await readBounded(response.body, maxIndexBytes);
      if (body === undefined) throw new OciError(502, 'SIZE_INVALID', 'the list of referrers is too large');
      return body;
    });
  } catch (error) {
    if (error instanceof RegistryError && [404, 405].includes(error.status)) return undefined;
    throw error;
  }
}

/** The tag that registries without the API use instead; a missing one means that nothing refers to the manifest. */
async function fromTag(
  manifests: CachedManifests,
  repository: Reference,
  digest: Digest,
  credentials: Credentials | undefined,
  signal: AbortSignal,
): Promise<Buffer | undefined> {
  try {
    return (await manifests.fetch({ repository, target: digest.replace(':', '-'), credentials, signal })).content;
  } catch (error) {
    if (isEngineError(error, 'notFound') || (error instanceof RegistryError && error.status === 404)) return undefined;
    throw error;
  }
}
