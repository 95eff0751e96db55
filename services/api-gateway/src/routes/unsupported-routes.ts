import { apiVersion, parseFilters } from '@flotilla/docker-api';
import { notFound, unavailable, unimplemented } from '@flotilla/errors';
import type { ApiCall } from '../http/api-call.js';
import { notAManager } from '../http/not-a-manager.js';
import type { Method, Route } from '../http/route-table.js';

/** Endpoints of the Engine API that exist here by name only: method, path, what is missing. */
const MISSING: readonly (readonly [Method, string, string])[] = [
  ['POST', '/build', 'building images is not implemented: build elsewhere and load or pull the image'],
  ['POST', '/build/cancel', 'building images is not implemented'],
  ['POST', '/session', 'BuildKit sessions are not implemented'],
  ['POST', '/grpc', 'the BuildKit API is not implemented'],
  ['GET', '/images/{name...}/attestations', 'image attestations are not implemented'],
  ['GET', '/plugins/privileges', 'plugins are not implemented'],
  ['POST', '/plugins/pull', 'plugins are not implemented'],
  ['POST', '/plugins/create', 'plugins are not implemented'],
  ['POST', '/swarm/init', 'swarm mode is not implemented'],
  ['POST', '/swarm/join', 'swarm mode is not implemented'],
];

/** Endpoints that need a swarm manager: this engine is none, and says so as dockerd outside a swarm does. */
const SWARM_ONLY: readonly (readonly [Method, string])[] = [
  ['GET', '/swarm'],
  ['POST', '/swarm/leave'],
  ['POST', '/swarm/update'],
  ['GET', '/swarm/unlockkey'],
  ['POST', '/swarm/unlock'],
  ['GET', '/nodes'],
  ['GET', '/nodes/{id}'],
  ['DELETE', '/nodes/{id}'],
  ['POST', '/nodes/{id}/update'],
  ['GET', '/services'],
  ['POST', '/services/create'],
  ['GET', '/services/{id}'],
  ['DELETE', '/services/{id}'],
  ['POST', '/services/{id}/update'],
  ['GET', '/services/{id}/logs'],
  ['GET', '/tasks'],
  ['GET', '/tasks/{id}'],
  ['GET', '/tasks/{id}/logs'],
  ['GET', '/secrets'],
  ['POST', '/secrets/create'],
  ['GET', '/secrets/{id}'],
  ['DELETE', '/secrets/{id}'],
  ['POST', '/secrets/{id}/update'],
  ['GET', '/configs'],
  ['POST', '/configs/create'],
  ['GET', '/configs/{id}'],
  ['DELETE', '/configs/{id}'],
  ['POST', '/configs/{id}/update'],
];

/** Endpoints of one plugin. There are none: clients that look an unknown name up among all kinds of objects rely on 404. */
const ONE_PLUGIN: readonly (readonly [Method, string])[] = [
  ['GET', '/plugins/{name...}/json'],
  ['DELETE', '/plugins/{name...}'],
  ['POST', '/plugins/{name...}/enable'],
  ['POST', '/plugins/{name...}/disable'],
  ['POST', '/plugins/{name...}/upgrade'],
  ['POST', '/plugins/{name...}/push'],
  ['POST', '/plugins/{name...}/set'],
];

/** Known endpoints without anything behind them: a sentence instead of `page not found`, or what an engine without any answers. */
export const unsupportedRoutes = (): Route[] => [
  {
    method: 'PUT',
    path: '/volumes/{name}',
    since: apiVersion(1, 42),
    handler: () => {
      throw unavailable('volume update only valid for cluster volumes, but swarm is unavailable');
    },
  },
  { method: 'GET', path: '/plugins', handler: (call) => call.json(200, []) },
  // `docker system prune` asks for it last.
  {
    method: 'POST',
    path: '/build/prune',
    since: apiVersion(1, 31),
    handler: (call) => {
      parseFilters(call.query.get('filters'));
      call.json(200, { CachesDeleted: [], SpaceReclaimed: 0 });
    },
  },
  ...ONE_PLUGIN.map(([method, path]) => ({
    method,
    path,
    handler: (call: ApiCall) => {
      throw notFound(`plugin "${call.param('name')}" not found`);
    },
  })),
  ...MISSING.map(([method, path, reason]) => ({
    method,
    path,
    handler: () => {
      throw unimplemented(reason);
    },
  })),
  ...SWARM_ONLY.map(([method, path]) => ({
    method,
    path,
    handler: () => {
      throw notAManager();
    },
  })),
];
