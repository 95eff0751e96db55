import * as z from 'zod/mini';

const ulimitSchema = () => z.strictObject({ name: z.string(), soft: z.int(), hard: z.int() });

/** `containerId` and the `size - 1` ids after it are `hostId` and those after it outside. */
const idRanges = () => z.array(z.strictObject({ containerId: z.int(), hostId: z.int(), size: z.int() }));

const idMappings = () => z.strictObject({ uids: idRanges(), gids: idRanges() });

/** Ids of a user namespace and what they are outside. */
export type IdMappings = z.output<ReturnType<typeof idMappings>>;

const runtimeSchema = () =>
  z.strictObject({
    /** Binary of an OCI runtime, absolute or looked up in PATH. */
    path: z.string(),
    runtimeArgs: z.array(z.string()),
  });

export const containerBlock = () =>
  z.strictObject({
    defaultRuntime: z.string(),
    /** By name; holds `runc` always. */
    runtimes: z.record(z.string(), runtimeSchema()),
    logDriver: z.string(),
    logOpts: z.record(z.string(), z.string()),
    defaultUlimits: z.array(ulimitSchema()),
    defaultShmSizeBytes: z.int(),
    defaultIpcMode: z.enum(['private', 'shareable']),
    defaultStopTimeoutSeconds: z.int(),
    /** Run an init process in containers that do not say. */
    init: z.boolean(),
    initPath: z.string(),
    noNewPrivileges: z.boolean(),
    /** `builtin`, `unconfined` or the path of a profile. */
    seccompProfile: z.string(),
    cgroupParent: z.string(),
    /** Ids of containers' user namespaces; absent: they run in the host's. */
    userNamespace: z.optional(idMappings()),
    /** What the image service is told. */
    storageDriver: z.optional(z.enum(['overlay2', 'vfs'])),
    dns: z.array(z.string()),
    dnsOptions: z.array(z.string()),
    dnsSearch: z.array(z.string()),
    hostGatewayIps: z.array(z.string()),
    /** The host's resolver file. */
    resolvConfPath: z.string(),
  });
