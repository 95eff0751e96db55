import { JsonReader } from '@flotilla/oci';
import type { Reference } from '@flotilla/oci';
import type { Credentials } from './credentials.js';
import { readBounded } from './http-transport.js';
import { parseUrl } from './parse-url.js';
import { pullScope } from './manifests.js';
import type { RegistryClient } from './registry-client.js';
import { RegistryError } from './registry-error.js';

/** Together with the next one below what a gRPC message may hold. */
const maxTags = 100_000;
const maxTagBytes = 14 * 1024 * 1024;
const maxPageBytes = 8 * 1024 * 1024;
const maxPages = 10_000;
const json = new JsonReader('tag list');

/** Tags of a repository, page by page. @throws RegistryError for more of them, or of pages, than can be held. */
export function listTags(
  client: RegistryClient,
  repository: Reference,
  credentials: Credentials | undefined,
  signal: AbortSignal,
): Promise<string[]> {
  return client.withRegistry(repository.domain, signal, async (registry) => {
    const tags: string[] = [];
    let bytes = 0;
    let query = '?n=1000';
    for (let pages = 1; ; pages += 1) {
      const response = await client.request(registry, {
        method: 'GET',
        path: `${repository.path}/tags/list${query}`,
        scope: pullScope(repository),
        credentials,
        signal,
      });
      const body = await readBounded(response.body, maxPageBytes);
      if (body === undefined) throw new RegistryError(200, 'http', 'the list of tags is too large');
      for (const tag of json.strings(json.parse(body), 'tags') ?? []) {
        tags.push(tag);
        // With what a message adds to each.
        bytes += Buffer.byteLength(tag) + 4;
      }
      if (tags.length > maxTags || bytes > maxTagBytes || pages > maxPages) {
        throw new RegistryError(200, 'http', `${repository.path} has too many tags to list (more than ${maxTags})`);
      }
      const next = parseUrl(
        /<([^>]*)>\s*;\s*rel="?next"?/.exec(response.headers.get('link') ?? '')?.[1] ?? '',
        response.url,
      );
      if (next === null || next.search === '' || next.search === query) return tags;
      query = next.search;
    }
  });
}
