import { apiVersion, registryAuthFrom } from '@flotilla/docker-api';
import type { Route } from '../http/route-table.js';
import { anything } from '../json/decoders.js';
import { diskUsage } from './disk-usage.js';
import { SLOW_MS, reading } from './gateway-context.js';
import type { GatewayContext } from './gateway-context.js';
import { ServiceFacts, infoShape, systemInfo, systemVersion } from './system-info.js';

/** The endpoints that tell of the engine as a whole. */
export function systemRoutes(context: GatewayContext, pingHeaders: readonly string[]): Route[] {
  const facts = new ServiceFacts(context);
  const { peers } = context;
  return [
    ...(['GET', 'HEAD'] as const).map(
      (method) =>
        ({
          method,
          path: '/_ping',
          handler: (call) => {
            call.res.writeHead(200, [...pingHeaders]);
            call.res.end('OK');
          },
        }) satisfies Route,
    ),
    {
      method: 'GET',
      path: '/version',
      handler: async (call) => {
        call.json(200, await systemVersion(context, facts));
      },
    },
    {
      method: 'GET',
      path: '/info',
      handler: async (call) => {
        call.json(200, infoShape.render(await systemInfo(context, facts), call.version));
      },
    },
    {
      method: 'POST',
      path: '/auth',
      handler: async (call) => {
        const credentials = registryAuthFrom(await call.readJson(anything));
        const { status, identityToken } = await peers.registry.authenticate({ credentials }, reading(call, SLOW_MS));
        call.json(200, { Status: status, ...(identityToken === '' ? {} : { IdentityToken: identityToken }) });
      },
    },
    { method: 'GET', path: '/system/df', since: apiVersion(1, 25), handler: (call) => diskUsage(context, call) },
  ];
}
