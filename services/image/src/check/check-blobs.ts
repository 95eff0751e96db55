import { digestAlgorithm, sha256Of, shortId } from '@flotilla/oci';
import type { Digest } from '@flotilla/oci';
import { blobsOf } from '../pull/pull-image.js';
import type { StoreCheckDeps, StoreCheckOptions, StoreFinding } from './store-finding.js';

/**
 * Every blob that an image needs is there and has the content of its digest. A repair puts a corrupt one aside, so that
 * the next pull or load brings it again, and writes configurations anew: the records have them.
 */
export async function* checkBlobs(
  deps: StoreCheckDeps,
  { repair }: StoreCheckOptions,
  signal: AbortSignal,
): AsyncGenerator<StoreFinding> {
  const { catalog, content } = deps;
  for (const [digest, imageIds] of neededBlobs(deps)) {
    signal.throwIfAborted();
    const fault = await faultOf(deps, digest, signal);
    if (fault === undefined || !catalog.usesBlob(digest)) continue;
    const finding = (what: string, isRepaired: boolean): StoreFinding => ({
      kind: fault === 'missing' ? 'blobMissing' : 'blobCorrupt',
      subject: digest,
      message: `${what} (needed by ${imageIds.map(shortId).join(', ')})`,
      imageIds,
      isRepaired,
    });
    const told = fault === 'missing' ? 'the blob is missing' : 'the blob is corrupt: its content has another digest';
    if (!repair) {
      yield finding(told, false);
      continue;
    }
    await content.quarantine(digest);
    await deps.distrust(digest);
    const isRebuilt = await rebuildConfiguration(deps, digest);
    const outcome = isRebuilt
      ? 'written anew from the record'
      : `${fault === 'missing' ? '' : 'put aside; '}pull or load the image again`;
    yield finding(`${told}; ${outcome}`, isRebuilt);
  }
}

function neededBlobs({ catalog }: StoreCheckDeps): Map<Digest, Digest[]> {
  const needed = new Map<Digest, Digest[]>();
  for (const { record } of catalog.all()) {
    for (const { digest } of blobsOf(record)) {
      const users = needed.get(digest);
      if (users === undefined) needed.set(digest, [record.id]);
      else if (!users.includes(record.id)) users.push(record.id);
    }
  }
  return needed;
}

async function faultOf(
  { content, layers }: StoreCheckDeps,
  digest: Digest,
  signal: AbortSignal,
): Promise<'missing' | 'corrupt' | undefined> {
  const state = await content.fileState(digest);
  if (state !== 'whole') return state === 'missing' ? 'missing' : 'corrupt';
  const found = await layers
    .digestFile(content.path(digest), digestAlgorithm(digest), signal)
    .catch((error: unknown) => {
      // Removed meanwhile.
      if (!content.has(digest)) return undefined;
      throw error;
    });
  return found === undefined || found === digest ? undefined : 'corrupt';
}

async function rebuildConfiguration({ catalog, content }: StoreCheckDeps, digest: Digest): Promise<boolean> {
  const record = catalog.get(digest)?.record;
  if (record === undefined) return false;
  const bytes = Buffer.from(record.configJson);
  if (sha256Of(bytes) !== digest) return false;
  await content.put(bytes);
  await content.settled([digest]);
  return true;
}
