import type { CacheUsage } from '../blobs/blob-cache.js';

/** The cache in the Prometheus text format. */
export function cacheMetrics(usage: CacheUsage, openCircuits: readonly string[]): string[] {
  return [
    '# TYPE flotilla_registry_cache_blobs gauge',
    `flotilla_registry_cache_blobs{state="complete"} ${usage.blobs}`,
    `flotilla_registry_cache_blobs{state="partial"} ${usage.partialBlobs}`,
    '# TYPE flotilla_registry_cache_bytes gauge',
    `flotilla_registry_cache_bytes{state="own"} ${usage.ownBytes}`,
    `flotilla_registry_cache_bytes{state="shared"} ${usage.sharedBytes}`,
    `flotilla_registry_cache_bytes{state="partial"} ${usage.partialBytes}`,
    '# TYPE flotilla_registry_open_circuits gauge',
    `flotilla_registry_open_circuits ${openCircuits.length}`,
  ];
}
