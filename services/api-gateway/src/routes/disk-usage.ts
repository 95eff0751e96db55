import { apiVersion } from '@flotilla/docker-api';
import type { ContainerSummary, Volume } from '@flotilla/docker-api';
import { invalidArgument } from '@flotilla/errors';
import type { ApiCall } from '../http/api-call.js';
import { newestFirst } from '../model/container-list.js';
import { imageSummary } from '../shapes/image.js';
import { volumeShape } from '../shapes/volume.js';
import { containerSizes } from './container-routes.js';
import { BULK_MS, reading } from './gateway-context.js';
import type { GatewayContext } from './gateway-context.js';

const TYPES = ['container', 'image', 'volume', 'build-cache'];

/** `GET /system/df`: what everything takes on the disk. */
export async function diskUsage(context: GatewayContext, call: ApiCall): Promise<void> {
  const asked = call.version < apiVersion(1, 42) ? [] : call.query.getAll('type');
  for (const type of asked) if (!TYPES.includes(type)) throw invalidArgument(`unknown object type: ${type}`);
  const wants = (type: string): boolean => asked.length === 0 || asked.includes(type);
  const [images, containers, volumes] = await Promise.all([
    wants('image') ? imageUsage(context, call) : undefined,
    wants('container') ? containerUsage(context, call) : undefined,
    wants('volume') ? volumeUsage(context, call) : undefined,
  ]);
  call.json(200, {
    ...(images === undefined ? {} : images),
    ...(containers === undefined ? {} : { Containers: containers }),
    ...(volumes === undefined ? {} : { Volumes: volumes }),
    ...(wants('build-cache') ? { BuildCache: [] } : {}),
  });
}

async function imageUsage(
  { model, peers }: GatewayContext,
  call: ApiCall,
): Promise<{ LayersSize: number; Images: unknown[] }> {
  const [objects, usage] = await Promise.all([
    model.listImages(),
    peers.image.getImageUsage({}, reading(call, BULK_MS)),
  ]);
  const byId = new Map(usage.images.map((entry) => [entry.id, entry]));
  const shapes = objects.map((object) => {
    const own = byId.get(object.id);
    return {
      ...imageSummary.render(object, call.version),
      SharedSize: Number(own?.sharedSizeBytes ?? 0n),
      Containers: Number(own?.containers ?? BigInt(object.heldBy.length)),
    };
  });
  return { LayersSize: Number(usage.layersSizeBytes), Images: shapes };
}

async function containerUsage({ model, peers }: GatewayContext, call: ApiCall): Promise<ContainerSummary[]> {
  const objects = (await model.listContainers()).sort(newestFirst);
  const sizes = await containerSizes(peers, objects, call);
  const { body } = model.listRenderer.render(objects, call.version, Date.now(), sizes);
  return JSON.parse(body.toString()) as ContainerSummary[];
}

async function volumeUsage({ model, peers }: GatewayContext, call: ApiCall): Promise<Volume[]> {
  const [{ volumes }, usage] = await Promise.all([
    model.listVolumes(),
    peers.volume.getVolumeUsage({}, reading(call, BULK_MS)),
  ]);
  const byName = new Map(usage.volumes.map((entry) => [entry.name, entry]));
  return volumes.map((object) => {
    const own = byName.get(object.name);
    return {
      ...volumeShape.render(object, call.version),
      UsageData: {
        RefCount: Number(own?.referenceCount ?? BigInt(object.heldBy.length)),
        Size: Number(own?.sizeBytes ?? -1n),
      },
    };
  });
}
