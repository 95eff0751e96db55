import { JsonReader } from '@flotilla/oci';
import type { Reference } from '@flotilla/oci';
import type { Credentials } from './credentials.js';
import { readBounded } from './http-transport.js';
import { parseUrl } from './parse-url.js';
import { pullScope } from './manifests.js';
import type { RegistryClient } from './registry-client.js';
import { RegistryError } from './registry-error.js';

const maxTags = 10_000;
const maxPageBytes = 8 * 1024 * 1024;
const json = new JsonReader('tag list');

/** Tags of a repository, page by page. */
export function listTags(
  client: RegistryClient,
  repository: Reference,
  credentials: Credentials | undefined,
  signal: AbortSignal,
): Promise<string[]> {
  return client.withRegistry(repository.domain, signal, async (registry) => {
    const tags: string[] = [];
    let query = '?n=1000';
    for (;;) {
      const response = await client.request(registry, {
        method: 'GET',
        path: `${repository.path}/tags/list${query}`,
        scope: pullScope(repository),
        credentials,
        signal,
      });
      const body = await readBounded(response.body, maxPageBytes);
      if (body === undefined) throw new RegistryError(200, 'http', 'the list of tags is too large');
      tags.push(...(json.strings(json.parse(body), 'tags') ?? []));
      const next = parseUrl(
        /<([^>]*)>\s*;\s*rel="?next"?/.exec(response.headers.get('link') ?? '')?.[1] ?? '',
        response.url,
      );
      if (next === null || next.search === '' || next.search === query || tags.length >= maxTags) {
        return tags.slice(0, maxTags);
      }
      query = next.search;
    }
  });
}
