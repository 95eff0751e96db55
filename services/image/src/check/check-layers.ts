import { messageOf } from '@flotilla/errors';
import { shortId } from '@flotilla/oci';
import type { Digest } from '@flotilla/oci';
import { leasedImages } from '../catalog/records.js';
import type { LayerRecord } from '../catalog/records.js';
import { restoreLayer } from '../containers/restore-layer.js';
import type { StoreCheckDeps, StoreCheckOptions, StoreFinding } from './store-finding.js';

interface NeededLayer {
  /** The records that tell of it, one per blob; none if only a container still needs it. */
  readonly sources: LayerRecord[];
  readonly parentChainId: Digest | undefined;
  readonly imageIds: Digest[];
}

/** Every layer that an image or a container needs is unpacked; a repair unpacks it again from its blob. */
export async function* checkLayers(
  deps: StoreCheckDeps,
  { repair }: StoreCheckOptions,
  signal: AbortSignal,
): AsyncGenerator<StoreFinding> {
  const { catalog, containers, layers } = deps;
  await containers.restored();
  for (const [chainId, { sources, parentChainId, imageIds }] of neededLayers(deps)) {
    signal.throwIfAborted();
    const layer = sources[0];
    const fault = layers.has(chainId) ? await layers.examine(chainId, layer?.diffId, parentChainId) : 'missing';
    if (fault === undefined || !catalog.usesLayer(chainId)) continue;
    const users = imageIds.length === 0 ? 'a container' : imageIds.map(shortId).join(', ');
    const finding = (outcome: string, isRepaired: boolean): StoreFinding => ({
      kind: fault === 'missing' ? 'layerMissing' : 'layerRecord',
      subject: chainId,
      message: `${fault === 'missing' ? 'the layer is missing' : 'the record of the layer is wrong'}${outcome} (needed by ${users})`,
      imageIds,
      isRepaired,
    });
    if (!repair) {
      yield finding('', false);
      continue;
    }
    try {
      if (layer === undefined) yield finding('; its image is gone, so that nothing can rebuild it', false);
      else if (fault === 'record') {
        await layers.restoreRecord(chainId, layer.diffId, parentChainId);
        yield finding('; written anew', true);
      } else {
        await layers.remove(chainId);
        await unpackAgain(deps, sources, parentChainId);
        yield finding('; unpacked again', true);
      }
    } catch (error) {
      yield finding(`; unpacking it again failed: ${messageOf(error)}`, false);
    }
  }
}

function neededLayers({ catalog }: StoreCheckDeps): Map<Digest, NeededLayer> {
  const needed = new Map<Digest, NeededLayer>();
  for (const { record } of catalog.all()) {
    let parentChainId: Digest | undefined;
    for (const layer of record.layers) {
      const known = needed.get(layer.chainId);
      if (known === undefined) {
        needed.set(layer.chainId, { sources: [layer], parentChainId, imageIds: [record.id] });
      } else {
        if (!known.imageIds.includes(record.id)) known.imageIds.push(record.id);
        if (known.sources.every(({ blob }) => blob.digest !== layer.blob.digest)) known.sources.push(layer);
      }
      parentChainId = layer.chainId;
    }
  }
  for (const { chainIds } of catalog.leases().flatMap(leasedImages)) {
    chainIds.forEach((chainId, at) => {
      if (!needed.has(chainId)) {
        needed.set(chainId, { sources: [], parentChainId: chainIds[at - 1], imageIds: [] });
      }
    });
  }
  return needed;
}

/** From the first of its blobs that is good. */
async function unpackAgain(
  { catalog, content, layers }: StoreCheckDeps,
  sources: readonly LayerRecord[],
  parentChainId: Digest | undefined,
): Promise<void> {
  const hold = catalog.hold();
  hold.layers(sources.map(({ chainId }) => chainId));
  hold.blobs(sources.map(({ blob }) => blob.digest));
  let failure: unknown;
  try {
    for (const source of sources) {
      try {
        await restoreLayer({ layers, content }, source, parentChainId);
        return;
      } catch (error) {
        failure ??= error;
      }
    }
    throw failure;
  } finally {
    await hold.release();
  }
}
