import { booleanValue } from '@flotilla/docker-api';
import { internal, invalidArgument } from '@flotilla/errors';
import { timestampToRfc3339Nano } from '@flotilla/proto';
import type { container } from '@flotilla/proto';
import type { ApiCall } from '../http/api-call.js';
import type { Route } from '../http/route-table.js';
import { BULK_MS, SLOW_MS, changing, reading } from './gateway-context.js';
import type { GatewayContext } from './gateway-context.js';

/** `docker cp` both ways. */
export function archiveRoutes({ peers }: GatewayContext): Route[] {
  const path = '/containers/{id}/archive';
  return [
    {
      method: 'HEAD',
      path,
      handler: async (call) => {
        const { stat } = await peers.container.statPath(
          { name: call.param('id'), path: pathOf(call) },
          reading(call, SLOW_MS),
        );
        if (stat === undefined) throw internal('the path has no stat');
        call.res.writeHead(200, call.headers('X-Docker-Container-Path-Stat', statHeader(stat)));
        call.res.end();
      },
    },
    {
      method: 'GET',
      path,
      handler: async (call) => {
        for await (const { frame } of peers.container.readArchive(
          { name: call.param('id'), path: pathOf(call) },
          { signal: call.signal },
        )) {
          if (frame?.$case === 'stat') {
            call.startBody(200, 'application/x-tar', 'X-Docker-Container-Path-Stat', statHeader(frame.value));
          } else if (frame?.$case === 'data') await call.write(frame.value);
        }
        call.end();
      },
    },
    {
      method: 'PUT',
      path,
      handler: async (call) => {
        const start: container.WriteArchiveStart = {
          name: call.param('id'),
          path: pathOf(call),
          noOverwriteDirNonDir: booleanValue(call.query.get('noOverwriteDirNonDir')),
          copyUidGid: booleanValue(call.query.get('copyUIDGID')),
        };
        async function* requests(): AsyncGenerator<container.WriteArchiveRequest> {
          yield { frame: { $case: 'start', value: start } };
          for await (const chunk of call.body()) yield { frame: { $case: 'data', value: chunk } };
        }
        await peers.container.writeArchive(requests(), { ...changing(call, BULK_MS), signal: call.signal });
        call.empty(200);
      },
    },
  ];
}

function pathOf(call: ApiCall): string {
  const path = call.query.get('path') ?? '';
  if (path === '') throw invalidArgument('bad parameter: path cannot be empty');
  return path;
}

const statHeader = (stat: container.PathStat): string =>
  Buffer.from(
    JSON.stringify({
      name: stat.name,
      size: Number(stat.sizeBytes),
      mode: stat.mode,
      mtime: timestampToRfc3339Nano(stat.modifiedAt),
      linkTarget: stat.linkTarget,
    }),
  ).toString('base64');
