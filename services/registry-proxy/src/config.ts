import type { Listen } from '@flotilla/rpc';
import type { LogFormat, LogLevel } from '@flotilla/log';

/** What registry-proxy needs of its configuration file. */
export interface RegistryProxyConfig {
  readonly version: string;
  readonly engineId: string;
  readonly dataRoot: string;
  /** `<data-root>/registry-proxy`. */
  readonly dataDir: string;
  readonly listen: Listen;
  readonly log: { readonly level: LogLevel; readonly format: LogFormat };
  readonly registry: RegistrySettings;
}

export interface RegistrySettings {
  /** Mirrors of Docker Hub, URLs. */
  readonly mirrors: readonly string[];
  /** Host[:port] or CIDR. */
  readonly insecureRegistries: readonly string[];
  /** Directory of `<host[:port]>/*.crt, *.cert, *.key`. */
  readonly certsDir: string;
  readonly maxDownloadAttempts: number;
  readonly connectTimeoutMs: number;
  readonly headersTimeoutMs: number;
  /** Longest silence inside a body. */
  readonly bodyTimeoutMs: number;
  readonly retryDelayMs: number;
  readonly maxRetryDelayMs: number;
  /** Blobs kept after they were handed over. */
  readonly cacheBytes: number;
  readonly proxies?: { readonly httpProxy: string; readonly httpsProxy: string; readonly noProxy: string } | undefined;
}

export const defaultRegistrySettings: RegistrySettings = {
  mirrors: [],
  insecureRegistries: [],
  certsDir: '/etc/docker/certs.d',
  maxDownloadAttempts: 5,
  connectTimeoutMs: 10_000,
  headersTimeoutMs: 30_000,
  bodyTimeoutMs: 30_000,
  retryDelayMs: 1_000,
  maxRetryDelayMs: 15_000,
  cacheBytes: 1024 * 1024 * 1024,
};
