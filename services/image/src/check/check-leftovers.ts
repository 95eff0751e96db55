import { rm } from 'node:fs/promises';
import type { StoreCheckDeps, StoreCheckOptions, StoreFinding, StoreFindingKind } from './store-finding.js';

/** What lies on the disk and nothing needs; a repair removes it. Work that is under way is not taken for that. */
export async function* checkLeftovers(
  deps: StoreCheckDeps,
  { repair, idle }: StoreCheckOptions,
  signal: AbortSignal,
): AsyncGenerator<StoreFinding> {
  const { catalog, content, layers, containers } = deps;
  // A record that is damaged may need what no other does.
  const removes = repair && !catalog.mayMissRecords;
  const kept = repair && !removes ? '; kept, as records are damaged' : '';
  const finding = (kind: StoreFindingKind, subject: string, what: string, isRepaired = removes): StoreFinding => ({
    kind,
    subject,
    message: `${what}${isRepaired ? '; removed' : kept}`,
    imageIds: [],
    isRepaired,
  });
  // Records change first and the disk follows: only what is still there afterwards is an orphan. A change that is
  // under way may be taken back, and then needs what it seemed to release.
  await catalog.settled();
  const isNeeded = (digest: string): boolean => catalog.isChanging || catalog.usesBlob(digest);
  for (const digest of content.digests()) {
    if (isNeeded(digest) || !content.has(digest)) continue;
    if (removes) await content.remove(digest, () => isNeeded(digest));
    yield finding('blobOrphan', digest, 'no image needs the blob');
  }
  for (const chainId of layers.chainIds()) {
    signal.throwIfAborted();
    if (catalog.isChanging || catalog.usesLayer(chainId) || !layers.has(chainId)) continue;
    if (removes) await layers.remove(chainId);
    yield finding('layerOrphan', chainId, 'no image and no container needs the layer');
  }
  const entries = await layers.entries();
  for (const containerId of entries.containers) {
    if (!(await containers.isOrphan(containerId))) continue;
    if (removes) await containers.release(containerId);
    yield finding('containerLayerOrphan', containerId, 'the container to which the layer belongs is gone');
  }
  const strays = [...(await content.strays()), ...entries.strays];
  if (idle) {
    await layers.settled();
    strays.push(...(await content.incoming()), ...(await layers.entries()).temporary);
  }
  for (const path of strays) {
    if (repair) await rm(path, { recursive: true, force: true });
    yield finding('temporary', path, 'the file was left behind', repair);
  }
}
