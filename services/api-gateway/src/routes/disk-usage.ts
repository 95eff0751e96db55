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

/** The cache is a detail of the answer: it is not waited for longer. */
const CACHE_MS = 5_000;
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

async function imageUsage(context: GatewayContext, call: ApiCall): Promise<{ LayersSize: number; Images: unknown[] }> {
  const { model, peers } = context;
  const [objects, usage, cachedBytes] = await Promise.all([
    model.listImages(),
    peers.image.getImageUsage({}, reading(call, BULK_MS)),
    registryCacheBytes(context, call),
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
  return { LayersSize: Number(usage.layersSizeBytes) + cachedBytes, Images: shapes };
}

/** Interrupted pulls and cached blobs of no image: part of what images take, and reclaimable. Nothing while registry-proxy is away. */
async function registryCacheBytes({ peers, log }: GatewayContext, call: ApiCall): Promise<number> {
  try {
    const { ownBytes, partialBytes } = await peers.registry.getCacheUsage({}, reading(call, CACHE_MS));
    return Number(ownBytes + partialBytes);
  } catch (err) {
    call.signal.throwIfAborted();
    log.warn({ err }, 'usage of the registry cache not known');
    return 0;
  }
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
