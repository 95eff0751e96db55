import * as z from 'zod/mini';

export const gatewayBlock = () =>
  z.strictObject({
    /** Docker API listeners: `unix:///path`. */
    hosts: z.array(z.string()),
    /** Group of the unix sockets; root's when it does not exist. */
    group: z.string(),
    debug: z.boolean(),
    labels: z.array(z.string()),
    minApiVersion: z.optional(z.string()),
    /** Shown by GET /info; decided elsewhere. */
    info: z.strictObject({
      defaultRuntime: z.string(),
      runtimes: z.record(z.string(), z.strictObject({ path: z.string(), runtimeArgs: z.array(z.string()) })),
      logDriver: z.string(),
      insecureRegistries: z.array(z.string()),
      registryMirrors: z.array(z.string()),
      defaultAddressPools: z.array(z.strictObject({ base: z.string(), size: z.int() })),
      initBinary: z.string(),
      seccompProfile: z.string(),
      liveRestore: z.boolean(),
      /** Containers run in user namespaces of their own. */
      userns: z.optional(z.boolean()),
    }),
  });
