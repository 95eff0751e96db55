import { once } from 'node:events';
import type { Server as HttpServer } from 'node:http';
import type { Server, Socket } from 'node:net';
import { join } from 'node:path';
import { MAX_API_VERSION, formatApiVersion } from '@flotilla/docker-api';
import type { GatewayConfig } from '@flotilla/config';
import { invalidArgument } from '@flotilla/errors';
import { EventReader } from '@flotilla/events';
import { createLogger } from '@flotilla/log';
import { HealthControl, serve } from '@flotilla/rpc';
import { sweepExchangeFifos } from '@flotilla/sys';
import { createFastLane } from './http/fast-lane.js';
import { createApiServer } from './http/http-server.js';
import { listenOn } from './http/listeners.js';
import type { ApiAddress } from './http/listeners.js';
import { RouteTable } from './http/route-table.js';
import type { Route } from './http/route-table.js';
import { ReadModel } from './model/read-model.js';
import { connectPeers } from './peers.js';
import type { Peers } from './peers.js';
import { archiveRoutes } from './routes/archive-routes.js';
import { attachRoutes } from './routes/attach-routes.js';
import { checkpointRoutes } from './routes/checkpoint-routes.js';
import { containerRoutes } from './routes/container-routes.js';
import { eventRoutes } from './routes/event-routes.js';
import type { GatewayContext } from './routes/gateway-context.js';
import { imageRoutes } from './routes/image-routes.js';
import { networkRoutes } from './routes/network-routes.js';
import { readyReplies } from './routes/ready-replies.js';
import { minVersionOf } from './routes/system-info.js';
import { systemRoutes } from './routes/system-routes.js';
import { unsupportedRoutes } from './routes/unsupported-routes.js';
import { volumeRoutes } from './routes/volume-routes.js';

/** How long running requests may take to end at shutdown. */
const DRAIN_MS = 3_000;

/** What tests put in place of the real thing. */
export interface GatewayDeps {
  readonly peers: Peers;
  readonly events: GatewayContext['events'];
}

/** A running gateway. */
export interface RunningGateway extends AsyncDisposable {
  /** Of the process's own gRPC server. */
  readonly address: string;
  /** Where the API is served. */
  readonly apiAddresses: readonly string[];
}

/** Every endpoint of the API. */
export function allRoutes(context: GatewayContext, pingHeaders: readonly string[]): Route[] {
  return [
    ...systemRoutes(context, pingHeaders),
    ...eventRoutes(context),
    ...containerRoutes(context),
    ...attachRoutes(context),
    ...archiveRoutes(context),
    ...checkpointRoutes(context),
    ...imageRoutes(context),
    ...volumeRoutes(context),
    ...networkRoutes(context),
    ...unsupportedRoutes(),
  ];
}

/** `unix:///path` or `tcp://host:port`. @throws EngineError `invalidArgument` */
export function parseApiAddress(text: string): ApiAddress {
  const unix = /^unix:\/\/(\/.*)$/.exec(text)?.[1];
  if (unix !== undefined) return { kind: 'unix', path: unix };
  const tcp = /^tcp:\/\/(\[[0-9a-f:.]+\]|[^:/]+):(\d{1,5})$/i.exec(text);
  if (tcp?.[1] !== undefined) return { kind: 'tcp', host: tcp[1].replace(/^\[|\]$/g, ''), port: Number(tcp[2]) };
  throw invalidArgument(`invalid API address ${text}: want unix:///path or tcp://host:port`);
}

/** Start the gateway: the API answers `/_ping` as soon as this resolves, whatever the other services do. */
export async function startApiGateway(
  config: GatewayConfig,
  overrides: Partial<GatewayDeps> = {},
): Promise<RunningGateway> {
  const log = createLogger({ service: config.service, level: config.log.level, format: config.log.format });
  const cleanup: (() => Promise<void> | void)[] = [];
  const dispose = async (): Promise<void> => {
    for (const step of cleanup.splice(0).reverse()) await step();
  };
  try {
    const peers = overrides.peers ?? (await connectPeers(config, log));
    cleanup.push(() => peers.close());
    const events = overrides.events ?? openEvents(config, log, cleanup);
    const model = new ReadModel(peers, log);
    cleanup.push(() => model[Symbol.asyncDispose]());
    model.start();

    const exchangeDir = join(config.dataRoot, 'exchange');
    sweepExchangeFifos(exchangeDir);
    const context: GatewayContext = { config, peers, model, events, log, exchangeDir };
    const baseHeaders = [
      'Api-Version',
      formatApiVersion(MAX_API_VERSION),
      'Docker-Experimental',
      'false',
      'Ostype',
      'linux',
      'Server',
      `Flotilla/${config.version} (linux)`,
    ];
    const pingHeaders = [
      ...baseHeaders,
      'Builder-Version',
      '1',
      'Cache-Control',
      'no-cache, no-store, must-revalidate',
      'Pragma',
      'no-cache',
      'Swarm',
      'inactive',
      'Content-Type',
      'text/plain; charset=utf-8',
      'Content-Length',
      '2',
    ];
    const options = {
      routes: new RouteTable(allRoutes(context, pingHeaders)),
      log,
      minVersion: minVersionOf(context),
      maxVersion: MAX_API_VERSION,
      baseHeaders,
      pingHeaders,
    };
    const apiAddresses: string[] = [];
    for (const host of config.gateway.hosts) {
      const http = createApiServer(options);
      const server = createFastLane(http, readyReplies(model, options));
      const sockets = new Set<Socket>();
      server.on('connection', (socket) => {
        sockets.add(socket);
        socket.once('close', () => sockets.delete(socket));
      });
      cleanup.push(() => closeServer(server, http, sockets));
      apiAddresses.push(await listenOn(server, parseApiAddress(host), config.gateway.group, log));
    }

    const health = new HealthControl();
    const rpc = await serve({
      listen: config.listen,
      services: [],
      log,
      service: config.service,
      version: config.version,
      engineId: config.engineId,
      health,
    });
    cleanup.push(async () => {
      await rpc[Symbol.asyncDispose]();
    });
    log.info({ addresses: apiAddresses }, 'api is served');
    return { address: rpc.address, apiAddresses, [Symbol.asyncDispose]: dispose };
  } catch (error) {
    await dispose();
    throw error;
  }
}

function openEvents(
  config: GatewayConfig,
  log: GatewayContext['log'],
  cleanup: (() => Promise<void> | void)[],
): EventReader {
  const reader = new EventReader(config.nats, log, { engineId: config.engineId });
  cleanup.push(() => reader[Symbol.asyncDispose]());
  return reader;
}

/** Stop accepting, let running requests end, then cut what is left. */
async function closeServer(server: Server, http: HttpServer, sockets: ReadonlySet<Socket>): Promise<void> {
  if (!server.listening) return;
  const closed = once(server, 'close');
  server.close();
  http.closeIdleConnections();
  const timer = setTimeout(() => {
    for (const socket of sockets) socket.destroy();
  }, DRAIN_MS);
  await closed;
  clearTimeout(timer);
}
