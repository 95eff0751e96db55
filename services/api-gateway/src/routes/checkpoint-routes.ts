import { apiVersion } from '@flotilla/docker-api';
import type { Route } from '../http/route-table.js';
import { checkpointBody } from '../json/container-bodies.js';
import { BULK_MS, changing, reading } from './gateway-context.js';
import type { GatewayContext } from './gateway-context.js';

/** Containers written down by criu. */
export function checkpointRoutes({ peers }: GatewayContext): Route[] {
  const since = apiVersion(1, 25);
  return [
    {
      method: 'GET',
      path: '/containers/{id}/checkpoints',
      since,
      handler: async (call) => {
        const directory = call.query.get('dir') ?? '';
        const { checkpoints } = await peers.container.listCheckpoints(
          { name: call.param('id'), directory },
          reading(call),
        );
        call.json(
          200,
          checkpoints.map((Name) => ({ Name })),
        );
      },
    },
    {
      method: 'POST',
      path: '/containers/{id}/checkpoints',
      since,
      handler: async (call) => {
        const body = (await call.readJson(checkpointBody)) ?? {};
        const request = {
          name: call.param('id'),
          checkpoint: body.CheckpointID ?? '',
          directory: body.CheckpointDir ?? '',
          exit: body.Exit ?? false,
        };
        await peers.container.createCheckpoint(request, changing(call, BULK_MS));
        call.empty(201);
      },
    },
    {
      method: 'DELETE',
      path: '/containers/{id}/checkpoints/{checkpoint}',
      since,
      handler: async (call) => {
        const request = {
          name: call.param('id'),
          checkpoint: call.param('checkpoint'),
          directory: call.query.get('dir') ?? '',
        };
        await peers.container.deleteCheckpoint(request, changing(call));
        call.empty(204);
      },
    },
  ];
}
