import type { RegistryConfig } from '@flotilla/config';

/** The `registry` block with everything filled in. */
export type RegistrySettings = RegistryConfig['registry'] & { readonly [K in keyof typeof defaults]: number };

const defaults = {
  maxDownloadAttempts: 5,
  connectTimeoutMs: 10_000,
  headersTimeoutMs: 30_000,
  bodyTimeoutMs: 30_000,
  retryDelayMs: 1_000,
  maxRetryDelayMs: 15_000,
  cacheBytes: 2 * 1024 ** 3,
  partialBytes: 8 * 1024 ** 3,
  uploadChunkBytes: 64 * 1024 * 1024,
};

/** Absent settings take their defaults. */
export function registrySettings({ registry }: RegistryConfig): RegistrySettings {
  const pick = (key: keyof typeof defaults): number => registry[key] ?? defaults[key];
  return {
    ...registry,
    maxDownloadAttempts: pick('maxDownloadAttempts'),
    connectTimeoutMs: pick('connectTimeoutMs'),
    headersTimeoutMs: pick('headersTimeoutMs'),
    bodyTimeoutMs: pick('bodyTimeoutMs'),
    retryDelayMs: pick('retryDelayMs'),
    maxRetryDelayMs: pick('maxRetryDelayMs'),
    cacheBytes: pick('cacheBytes'),
    uploadChunkBytes: pick('uploadChunkBytes'),
    partialBytes: pick('partialBytes'),
  };
}
