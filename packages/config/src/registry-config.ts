import * as z from 'zod/mini';

export const registryBlock = z.strictObject({
  /** Registries (host, host:port or CIDR) that may speak plain HTTP or show any certificate; loopback always may. */
  insecureRegistries: z.array(z.string()),
  /** Mirrors of Docker Hub, tried in order. */
  mirrors: z.array(z.string()),
  /** `HOST[:PORT]/{*.crt,*.cert,*.key}` below it, as dockerd reads them. */
  certsDir: z.string(),
  maxConcurrentDownloads: z.int(),
});
