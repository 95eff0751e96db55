import * as z from 'zod/mini';

export const registryBlock = () =>
  z.strictObject({
    /** Registries (host, host:port or CIDR) that may speak plain HTTP or show any certificate; loopback always may. */
    insecureRegistries: z.array(z.string()),
    /** Mirrors of Docker Hub, tried in order. */
    mirrors: z.array(z.string()),
    /** `HOST[:PORT]/{*.crt,*.cert,*.key}` below it, as dockerd reads them. */
    certsDir: z.string(),
    maxConcurrentDownloads: z.int(),
    /** Tries per blob, all together. */
    maxDownloadAttempts: z.optional(z.int()),
    connectTimeoutMs: z.optional(z.int()),
    /** From the request to the head of the answer. */
    headersTimeoutMs: z.optional(z.int()),
    /** Longest silence inside a body. */
    bodyTimeoutMs: z.optional(z.int()),
    /** Before the second try; doubled for each further one. */
    retryDelayMs: z.optional(z.int()),
    maxRetryDelayMs: z.optional(z.int()),
    /** Blobs that are kept although the image service does not have them (any more); 0: none. */
    cacheBytes: z.optional(z.int()),
    /** Larger blobs are pushed in pieces of this size. */
    uploadChunkBytes: z.optional(z.int()),
    /** What interrupted transfers may leave to be resumed. */
    partialBytes: z.optional(z.int()),
    /** Where the cache serves the read side of the distribution API; absent: nowhere. */
    serve: z.optional(
      z.strictObject({
        host: z.string(),
        port: z.int(),
        /** `caFile`: only clients with a certificate of it are served. */
        tls: z.optional(z.strictObject({ certFile: z.string(), keyFile: z.string(), caFile: z.optional(z.string()) })),
        /** Holds what clients must show. */
        tokenFile: z.optional(z.string()),
      }),
    ),
    proxies: z.optional(z.strictObject({ httpProxy: z.string(), httpsProxy: z.string(), noProxy: z.string() })),
  });
