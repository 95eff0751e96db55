import { isEngineError, messageOf } from '@flotilla/errors';
import {
  canonicalString,
  familiarString,
  chainIds as chainIdsOf,
  maxManifestBytes,
  parseManifest,
} from '@flotilla/oci';
import type { Manifest } from '@flotilla/oci';
import type { CatalogImage } from '../catalog/catalog.js';
import type { StoreCheckDeps, StoreCheckOptions, StoreFinding } from './store-finding.js';

/** Names stand for images, containers have their layers, and image records say what their manifests do. */
export async function* checkRecords(
  deps: StoreCheckDeps,
  { repair }: StoreCheckOptions,
  signal: AbortSignal,
): AsyncGenerator<StoreFinding> {
  const { catalog, layers, containers } = deps;
  for (const image of catalog.all()) {
    signal.throwIfAborted();
    const problem = await contradictionOf(deps, image);
    if (problem === undefined || catalog.get(image.record.id)?.record !== image.record) continue;
    yield {
      kind: 'imageRecord',
      subject: image.record.id,
      message: `${problem}; remove the image and pull or load it again`,
      imageIds: [image.record.id],
      isRepaired: false,
    };
  }
  for (const { reference, rest } of catalog.danglingReferences()) {
    const imageId = rest.at(-1);
    if (repair) {
      const name = imageId === undefined ? [] : [{ reference, imageId, siblings: rest }];
      await catalog.commit(imageId === undefined ? { unname: [reference] } : { name });
    }
    yield {
      kind: 'referenceDangling',
      subject: canonicalString(reference),
      message: `the name ${familiarString(reference)} stands for an image that is not there${repair ? '; removed' : ''}`,
      imageIds: [],
      isRepaired: repair,
    };
  }
  const { containers: directories } = await layers.entries();
  const present = new Set(directories);
  for (const { containerId, imageId } of catalog.leases()) {
    if (present.has(containerId) || catalog.lease(containerId) === undefined) continue;
    if (repair) await containers.restore(containerId);
    yield {
      kind: 'containerLayerMissing',
      subject: containerId,
      message: `what the container had written is lost${repair ? '; it has an empty layer now' : ''}`,
      imageIds: [imageId],
      isRepaired: repair,
    };
  }
}

async function contradictionOf({ content }: StoreCheckDeps, image: CatalogImage): Promise<string | undefined> {
  const { record, config } = image;
  const expected = chainIdsOf(config.diffIds);
  const isStack =
    expected.length === record.layers.length && record.layers.every(({ chainId }, at) => chainId === expected[at]);
  if (!isStack) return "the image's record and its configuration name other layers";
  // A blob that is missing or corrupt is told by the check of blobs.
  if (!content.has(record.manifest.digest) || (content.sizeOf(record.manifest.digest) ?? 0) > maxManifestBytes) return;
  let manifest: Manifest;
  try {
    const parsed = parseManifest(await content.read(record.manifest.digest), record.manifest.mediaType);
    if (parsed.kind !== 'manifest') return "the image's manifest is an index";
    manifest = parsed;
  } catch (error) {
    return isEngineError(error, 'invalidArgument')
      ? `the image's manifest cannot be read: ${messageOf(error)}`
      : undefined;
  }
  const isSame =
    manifest.config.digest === record.id &&
    manifest.layers.length === record.layers.length &&
    manifest.layers.every(({ digest }, at) => digest === record.layers[at]?.blob.digest);
  return isSame ? undefined : "the image's record and its manifest name other blobs";
}
