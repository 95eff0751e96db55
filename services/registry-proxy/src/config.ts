import type { RegistryConfig } from '@flotilla/config';

/** The `registry` block with everything filled in. */
export type RegistrySettings = Required<Omit<RegistryConfig['registry'], 'proxies'>> &
  Pick<RegistryConfig['registry'], 'proxies'>;

const defaults = {
  maxDownloadAttempts: 5,
  connectTimeoutMs: 10_000,
  headersTimeoutMs: 30_000,
  bodyTimeoutMs: 30_000,
  retryDelayMs: 1_000,
  maxRetryDelayMs: 15_000,
  cacheBytes: 1024 * 1024 * 1024,
};

/** Absent settings take their defaults. */
export function registrySettings({ registry }: RegistryConfig): RegistrySettings {
  const pick = <K extends keyof typeof defaults>(key: K): number => registry[key] ?? defaults[key];
  return {
    ...registry,
    maxDownloadAttempts: pick('maxDownloadAttempts'),
    connectTimeoutMs: pick('connectTimeoutMs'),
    headersTimeoutMs: pick('headersTimeoutMs'),
    bodyTimeoutMs: pick('bodyTimeoutMs'),
    retryDelayMs: pick('retryDelayMs'),
    maxRetryDelayMs: pick('maxRetryDelayMs'),
    cacheBytes: pick('cacheBytes'),
  };
}
