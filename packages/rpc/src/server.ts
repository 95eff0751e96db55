import { isIPv6 } from 'node:net';
import { dirname, join } from 'node:path';
import { Server, ServerCredentials } from '@grpc/grpc-js';
import type { ServiceDefinition, UntypedServiceImplementation } from '@grpc/grpc-js';
import { internal } from '@flotilla/errors';
import type { Logger } from '@flotilla/log';
import { prepareSocketPath, restrictSocket } from './address.js';
import type { Listen } from './address.js';
import type { Clock } from './call-metadata.js';
import { channelLimits } from './channel-options.js';
import { configEntry } from './config-service.js';
import type { ConfigParticipant, ServiceDetails } from './config-service.js';
import { serverCredentials } from './credentials.js';
import type { ServiceEntry } from './handlers.js';
import { HealthControl, healthEntry } from './health.js';
import { CallMetrics } from './metrics.js';
import { kindOf } from './method-types.js';
import type { AnyMethod } from './method-types.js';
import { widenSendBuffers } from './send-buffers.js';
import { markedDeserializer } from './stream-end.js';
import { reflectionEntry } from './reflection.js';
import { bindHandler, checkHandler } from './server-calls.js';
import type { CallHost, ReplyReader, RunningCall } from './server-calls.js';

export interface ServeOptions {
  readonly listen: Listen;
  readonly services: readonly ServiceEntry[];
  readonly log: Logger;
  /** Name of the process (`volume`) for metrics and GetServiceInfo. */
  readonly service: string;
  readonly version: string;
  readonly engineId?: string;
  readonly clock?: Clock | undefined;
  /** Needed when a handler is `idempotent`. */
  readonly replies?: ReplyReader | undefined;
  /** Serving from the start when absent. */
  readonly health?: HealthControl;
  readonly config?: ConfigParticipant;
  readonly details?: () => Promise<ServiceDetails>;
  /** Publishes every event committed so far and returns the last event's id. */
  readonly flushEvents?: () => Promise<string>;
  /** Lines of the Prometheus text format beside those that every process has. */
  readonly ownMetrics?: () => Promise<readonly string[]>;
  /** Descriptor set for reflection, read when asked for; `flotilla.binpb` beside the program when absent. */
  readonly descriptorSet?: string;
  /** How long running unary calls may take to end at shutdown; 3 s when absent. Streams are ended at once. */
  readonly drainMs?: number;
}

/** A listening server. Disposing drains: no new calls, streams ended, unary calls given `drainMs`, socket file removed. */
export interface RunningServer extends AsyncDisposable {
  /** For `connect`: `unix:/path` or `tcp:host:port` with the real port. */
  readonly address: string;
  readonly health: HealthControl;
}

/**
 * Serve gRPC with health, reflection and ConfigService beside the given services.
 *
 * @throws EngineError `conflict` when the address is taken; `internal` when handlers do not fit their definition.
 */
export async function serve(options: ServeOptions): Promise<RunningServer> {
  const { listen, log } = options;
  const health = options.health ?? new HealthControl();
  const metrics = new CallMetrics();
  const host: CallHost = {
    log,
    clock: options.clock,
    replies: options.replies,
    metrics,
    running: new Set<RunningCall>(),
    inFlight: new Map<string, Promise<unknown>>(),
  };
  const server = new Server(channelLimits);
  const entries: ServiceEntry[] = [
    ...options.services,
    healthEntry(health),
    configEntry({
      service: options.service,
      version: options.version,
      engineId: options.engineId ?? '',
      metrics,
      participant: options.config,
      details: options.details,
      flushEvents: options.flushEvents,
      ownMetrics: options.ownMetrics,
    }),
  ];
  const descriptorSet = options.descriptorSet ?? join(dirname(process.argv[1] ?? '.'), 'flotilla.binpb');
  entries.push(reflectionEntry(descriptorSet, entries.map(serviceName)));
  for (const entry of entries) addEntry(server, entry, host);

  const credentials =
    listen.kind === 'tcp' && listen.tls !== undefined
      ? await serverCredentials(listen.tls)
      : ServerCredentials.createInsecure();
  if (listen.kind === 'unix') await prepareSocketPath(listen.path);
  // Who has no services of its own sends nothing in bulk.
  const widened = listen.kind === 'unix' && options.services.length > 0 ? widenSendBuffers(listen.path) : undefined;
  const port = await bind(server, bindTarget(listen), credentials);
  if (listen.kind === 'unix') await restrictSocket(listen.path);

  return {
    address: listen.kind === 'unix' ? `unix:${listen.path}` : `tcp:${hostInTarget(listen.host)}:${port}`,
    health,
    async [Symbol.asyncDispose]() {
      health.setServing(false);
      const drained = new Promise<void>((resolve) => server.tryShutdown(() => resolve()));
      for (const call of host.running) if (call.isStream) call.shutDown();
      const timer = setTimeout(() => {
        for (const call of host.running) call.shutDown();
        server.forceShutdown();
      }, options.drainMs ?? 3000);
      await drained;
      clearTimeout(timer);
      server.forceShutdown();
      widened?.[Symbol.dispose]();
    },
  };
}

function addEntry(server: Server, [definition, handlers]: ServiceEntry, host: CallHost): void {
  const implementation: UntypedServiceImplementation = {};
  for (const [name, handler] of Object.entries(handlers)) {
    const method = definition[name];
    checkHandler(name, method, handler.kind, method === undefined ? '' : kindOf(method));
    if (method !== undefined) implementation[name] = bindHandler(method, handler, host);
  }
  const wire: Record<string, AnyMethod> = {};
  for (const [name, method] of Object.entries(definition)) {
    wire[name] = method.requestStream
      ? { ...method, requestDeserialize: markedDeserializer(method.requestDeserialize) }
      : method;
  }
  // grpc-js answers UNIMPLEMENTED for methods without a handler.
  server.addService(wire as ServiceDefinition, implementation);
}

function serviceName([definition]: ServiceEntry): string {
  const path = Object.values(definition)[0]?.path ?? '';
  return path.slice(1, path.lastIndexOf('/'));
}

function bind(server: Server, target: string, credentials: ServerCredentials): Promise<number> {
  return new Promise((resolve, reject) => {
    server.bindAsync(target, credentials, (error, port) => {
      if (error === null) resolve(port);
      else reject(internal(`cannot listen on ${target}: ${error.message}`, { cause: error }));
    });
  });
}

const hostInTarget = (host: string) => (isIPv6(host) ? `[${host}]` : host);
const bindTarget = (listen: Listen) =>
  listen.kind === 'unix' ? `unix:${listen.path}` : `${hostInTarget(listen.host)}:${listen.port}`;
