import * as z from 'zod/mini';

/** The services of an engine: names of their folders, configuration blocks' owners, sockets and processes. */
export const serviceNames = ['api-gateway', 'image', 'container', 'network', 'volume', 'registry-proxy'] as const;
export type ServiceName = (typeof serviceNames)[number];

const tlsSchema = () =>
  z.strictObject({
    /** Certificates of the authority that signed the other side's. */
    caFile: z.string(),
    certFile: z.string(),
    keyFile: z.string(),
  });

const listenSchema = () =>
  z.discriminatedUnion('kind', [
    z.strictObject({ kind: z.literal('unix'), path: z.string() }),
    z.strictObject({ kind: z.literal('tcp'), host: z.string(), port: z.int(), tls: z.optional(tlsSchema()) }),
  ]);

const natsSchema = () =>
  z.strictObject({
    url: z.string(),
    user: z.optional(z.string()),
    pass: z.optional(z.string()),
  });
export type NatsSettings = z.output<ReturnType<typeof natsSchema>>;

/** What every service's file holds. */
export const baseShape = () => ({
  service: z.enum(serviceNames),
  /** Version of the engine. */
  version: z.string(),
  /** UUID of the engine, `<node>` in event subjects. */
  engineId: z.string(),
  /** State that outlives the machine's start. */
  dataRoot: z.string(),
  /** State of the running engine: sockets, namespaces, bundles. */
  execRoot: z.string(),
  /** `<data-root>/<service>`: nobody else opens it. */
  dataDir: z.string(),
  /** Where this service serves gRPC. */
  listen: listenSchema(),
  /** gRPC addresses of all services by name: `unix:/path` or `tcp:host:port`. */
  services: z.record(z.string(), z.string()),
  /** Certificates for calls to TCP addresses. */
  tls: z.optional(tlsSchema()),
  /** `null`: events wait in the outbox. */
  nats: z.nullable(natsSchema()),
  log: z.strictObject({
    level: z.enum(['debug', 'info', 'warn', 'error', 'fatal', 'silent']),
    format: z.enum(['json', 'text']),
  }),
});
