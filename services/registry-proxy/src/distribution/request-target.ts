import { isDigest, parseReference, trimReference, withTagOrDigest } from '@flotilla/oci';
import type { Digest, Reference } from '@flotilla/oci';
import { OciError } from './oci-error.js';

/** What a request of the distribution API asks for. `name` is the repository as the client wrote it. */
export type RequestTarget =
  | { readonly kind: 'base' }
  | { readonly kind: 'manifest'; readonly name: string; readonly repository: Reference; readonly target: string }
  | { readonly kind: 'blob'; readonly name: string; readonly repository: Reference; readonly digest: Digest }
  | { readonly kind: 'tags'; readonly name: string; readonly repository: Reference }
  | { readonly kind: 'referrers'; readonly name: string; readonly repository: Reference; readonly digest: Digest };

const maxPath = 1024;
const hubNames = new Set(['docker.io', 'index.docker.io', 'registry-1.docker.io']);
const registryName = /^(?:[a-zA-Z0-9](?:[a-zA-Z0-9.-]*[a-zA-Z0-9])?|\[[0-9a-fA-F:.]+\])(?::\d{1,5})?$/;

/**
 * Read the path of a request. Which registry is meant stands in containerd's `ns` parameter, else as the first part of the
 * repository (`/v2/quay.io/team/app/...`; a port is written `__5000`, because names hold no colons), else it is Docker Hub, as
 * for dockerd's registry-mirrors.
 *
 * @throws OciError NAME_INVALID, DIGEST_INVALID, MANIFEST_INVALID; UNSUPPORTED for what is not served.
 */
export function readTarget(url: URL): RequestTarget {
  const path = url.pathname;
  if (path === '/v2/' || path === '/v2') return { kind: 'base' };
  const parts = path.length > maxPath ? null : /^\/v2\/(.+)\/(manifests|blobs|referrers)\/([^/]+)$/.exec(path);
  const list = parts === null ? /^\/v2\/(.+)\/tags\/list$/.exec(path) : null;
  const name = decode(parts?.[1] ?? list?.[1] ?? '');
  if (name === '') throw new OciError(404, 'UNSUPPORTED', 'only manifests, blobs, tags/list and referrers are served');
  const repository = readRepository(name, url.searchParams.get('ns'));
  if (list !== null) return { kind: 'tags', name, repository };
  const last = decode(parts?.[3] ?? '');
  if (parts?.[2] === 'manifests') {
    try {
      withTagOrDigest(repository, last);
    } catch {
      throw new OciError(404, 'MANIFEST_UNKNOWN', 'invalid tag or digest');
    }
    return { kind: 'manifest', name, repository, target: last };
  }
  if (!isDigest(last)) throw new OciError(400, 'DIGEST_INVALID', 'provided digest is not valid');
  return { kind: parts?.[2] === 'blobs' ? 'blob' : 'referrers', name, repository, digest: last };
}

function readRepository(name: string, namespace: string | null): Reference {
  const [first = '', ...rest] = name.split('/');
  const inName = first.replace(/__(\d{1,5})$/, ':$1');
  const isNamed = namespace === null && rest.length > 0 && (/[.:]/.test(inName) || inName === 'localhost');
  const registry = namespace ?? (isNamed ? inName : 'docker.io');
  const domain = hubNames.has(registry) ? 'docker.io' : registry;
  try {
    if (!registryName.test(domain)) throw new Error('no name of a registry');
    const reference = trimReference(parseReference(`${domain}/${isNamed ? rest.join('/') : name}`));
    // A name without a dot would be taken for a part of the path.
    if (reference.domain !== domain) throw new Error('no name of a registry');
    return reference;
  } catch {
    throw new OciError(400, 'NAME_INVALID', 'invalid repository name');
  }
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw new OciError(400, 'NAME_INVALID', 'invalid repository name');
  }
}
