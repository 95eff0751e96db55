import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { createServer as createHttpServer } from 'node:http';
import type { Server } from 'node:http';
import { createServer as createHttpsServer } from 'node:https';
import type { RegistryConfig } from '@flotilla/config';
import { conflict, internal, invalidArgument, messageOf } from '@flotilla/errors';
import { hasCode } from '@flotilla/sys';
import { distributionApi } from './distribution-api.js';
import type { DistributionDeps } from './distribution-api.js';
import { FrontDoor } from './front-door.js';

export type DistributionListen = NonNullable<RegistryConfig['registry']['serve']>;

const maxConnections = 512;
const limits = { headersTimeout: 10_000, requestTimeout: 30_000, keepAliveTimeout: 60_000, maxHeaderSize: 32 * 1024 };
const drainMs = 2_000;

/**
 * Serve the cache as a registry. With `tls.caFile` only clients with a certificate of that authority are served.
 *
 * @throws EngineError `invalidArgument` for files that cannot be used, `conflict` when the address is taken.
 */
export async function serveDistribution(
  { host, port, tls, tokenFile }: DistributionListen,
  deps: Omit<DistributionDeps, 'door'>,
): Promise<AsyncDisposable> {
  const handle = distributionApi({ ...deps, door: await FrontDoor.open(tokenFile) });
  const server: Server =
    tls === undefined
      ? createHttpServer(limits, handle)
      : createHttpsServer({ ...limits, ...(await readTls(tls)) }, handle);
  server.maxConnections = maxConnections;
  server.on('clientError', (_error, socket) => socket.destroy());
  try {
    server.listen(port, host);
    await once(server, 'listening');
  } catch (error) {
    const message = `registry-listen: cannot listen on ${host}:${port}: ${messageOf(error)}`;
    throw hasCode(error, 'EADDRINUSE') ? conflict(message, { cause: error }) : internal(message, { cause: error });
  }
  return {
    async [Symbol.asyncDispose]() {
      const closed = once(server, 'close');
      server.close();
      server.closeIdleConnections();
      const timer = setTimeout(() => server.closeAllConnections(), drainMs);
      await closed;
      clearTimeout(timer);
    },
  };
}

async function readTls({ certFile, keyFile, caFile }: NonNullable<DistributionListen['tls']>) {
  try {
    return {
      cert: await readFile(certFile),
      key: await readFile(keyFile),
      minVersion: 'TLSv1.2' as const,
      ...(caFile === undefined ? {} : { ca: await readFile(caFile), requestCert: true, rejectUnauthorized: true }),
    };
  } catch (error) {
    throw invalidArgument(`registry-listen.tls: ${messageOf(error)}`, { cause: error });
  }
}
