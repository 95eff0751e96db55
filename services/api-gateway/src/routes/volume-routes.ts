import { apiVersion, booleanFilter, booleanValue, parseFilters, matchLabels } from '@flotilla/docker-api';
import { notFound } from '@flotilla/errors';
import type { volume } from '@flotilla/proto';
import type { ApiCall } from '../http/api-call.js';
import { notAManager } from '../http/not-a-manager.js';
import type { Route } from '../http/route-table.js';
import { anything, string, stringMap, struct } from '../json/decoders.js';
import { volumeShape } from '../shapes/volume.js';
import { BULK_MS, changing, reading } from './gateway-context.js';
import type { GatewayContext } from './gateway-context.js';
import { pruneSelection } from './prune-filters.js';

const createBody = struct('CreateOptions', {
  Name: string,
  Driver: string,
  DriverOpts: stringMap,
  Labels: stringMap,
  ClusterVolumeSpec: anything,
});
const filterKeys: ReadonlySet<string> = new Set(['dangling', 'driver', 'label', 'name']);

/** The endpoints of volumes. */
export function volumeRoutes(context: GatewayContext): Route[] {
  const { peers, model } = context;
  const settle = (revision: bigint): Promise<void> => model.volumes.reached(revision);
  return [
    { method: 'GET', path: '/volumes', handler: (call) => list(context, call) },
    {
      method: 'POST',
      path: '/volumes/create',
      handler: async (call) => {
        const body = (await call.readJson(createBody)) ?? {};
        // Before 1.42 nobody knew the field.
        const isForCluster = body.ClusterVolumeSpec !== undefined && body.ClusterVolumeSpec !== null;
        if (isForCluster && call.version >= apiVersion(1, 42)) throw notAManager();
        const { volume: object, revision } = await peers.volume.createVolume(
          {
            name: body.Name ?? '',
            driver: body.Driver ?? '',
            options: Object.fromEntries(body.DriverOpts ?? []),
            labels: Object.fromEntries(body.Labels ?? []),
          },
          changing(call),
        );
        await settle(revision);
        call.json(201, object === undefined ? {} : volumeShape.render(object, call.version));
      },
    },
    {
      method: 'POST',
      path: '/volumes/prune',
      since: apiVersion(1, 25),
      handler: async (call) => {
        const { filters, labels, excludedLabels } = pruneSelection(call, ['all']);
        // Named volumes went too before 1.42.
        const all = call.version < apiVersion(1, 42) || (booleanFilter(filters, 'all') ?? false);
        const { removed, reclaimedBytes, revision } = await peers.volume.pruneVolumes(
          { all, labels, excludedLabels },
          changing(call, BULK_MS),
        );
        await settle(revision);
        call.json(200, { VolumesDeleted: removed, SpaceReclaimed: Number(reclaimedBytes) });
      },
    },
    {
      method: 'GET',
      path: '/volumes/{name}',
      handler: async (call) => {
        const name = call.param('name');
        const object = model.volumes.isCurrent
          ? model.volumes.objects.get(name)
          : (await peers.volume.getVolume({ name }, reading(call))).volume;
        if (object === undefined) throw notFound(`get ${name}: no such volume`);
        call.json(200, volumeShape.render(object, call.version));
      },
    },
    {
      method: 'DELETE',
      path: '/volumes/{name}',
      handler: async (call) => {
        const { revision } = await peers.volume.removeVolume(
          { name: call.param('name'), force: booleanValue(call.query.get('force')) },
          changing(call),
        );
        await settle(revision);
        call.empty(204);
      },
    },
  ];
}

async function list({ model }: GatewayContext, call: ApiCall): Promise<void> {
  const filters = parseFilters(call.query.get('filters'), filterKeys);
  const dangling = booleanFilter(filters, 'dangling');
  const drivers = filters.get('driver');
  const labels = filters.get('label');
  const names = filters.get('name')?.map(namePattern);
  const { volumes, warnings } = await model.listVolumes();
  const chosen = volumes.filter(
    (object: volume.Volume) =>
      (dangling === undefined || dangling === (object.heldBy.length === 0)) &&
      (drivers === undefined || drivers.includes(object.driver)) &&
      matchLabels(labels, object.labels) &&
      (names === undefined || names.some((matches) => matches(object.name))),
  );
  call.json(200, { Volumes: chosen.map((object) => volumeShape.render(object, call.version)), Warnings: warnings });
}

/** A name filter is a part of the name, or a regular expression. */
export function namePattern(value: string): (name: string) => boolean {
  let expression: RegExp | undefined;
  try {
    expression = new RegExp(value);
  } catch {
    expression = undefined;
  }
  return (name) => name === value || expression?.test(name) === true;
}
