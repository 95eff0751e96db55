import { rm } from 'node:fs/promises';
import { emptyRunConfig, hostPlatform, parseDigest, parseImageConfig, renderRunConfig } from '@flotilla/oci';
import type { Platform, Reference } from '@flotilla/oci';
import { imageImported, imageTagged } from '../images/image-events.js';
import { blobsOf } from '../pull/pull-image.js';
import { decompressed } from '@flotilla/layer-tar';
import { applyChanges } from './dockerfile-changes.js';
import type { LoadDeps } from './load-images.js';
import { adoptCompressed, makeImageRecord } from './store-image.js';

export interface ImportOptions {
  readonly reference: Reference | undefined;
  readonly message: string;
  readonly changes: readonly string[];
  readonly platform: Platform | undefined;
  /** Where it came from; "-" for a body. */
  readonly source: string;
}

/** Make an image of one layer from a root file system tar, plain or compressed; gives its id and the revision. */
export async function importImage(
  { catalog, content, layers, now }: LoadDeps,
  source: AsyncIterable<Buffer>,
  options: ImportOptions,
  signal: AbortSignal,
  reply: (id: string) => { readonly requestId: string; readonly encode: (revision: bigint) => Uint8Array },
): Promise<{ id: string; revision: bigint }> {
  // Bad instructions are told before a large body is read.
  const run = applyChanges(emptyRunConfig, options.changes);
  const hold = catalog.hold();
  const targetPath = content.scratchPath();
  try {
    const ingested = await layers.ingestLayer({
      source: decompressed(source),
      targetPath,
      claim: (chainId) => hold.layers([chainId]),
      signal,
    });
    const blob = await adoptCompressed(content, targetPath, ingested, hold);
    const diffId = parseDigest(ingested.diffId);
    const { sizeBytes } = ingested;
    const created = now().toISOString();
    const { os, architecture, variant } = options.platform ?? hostPlatform();
    const configBytes = Buffer.from(
      JSON.stringify({
        architecture,
        ...(variant === '' ? {} : { variant }),
        os,
        created,
        ...(options.message === '' ? {} : { comment: options.message }),
        config: renderRunConfig(run),
        rootfs: { type: 'layers', diff_ids: [diffId] },
        history: [{ created, comment: options.message === '' ? `Imported from ${options.source}` : options.message }],
      }),
    );
    const config = parseImageConfig(configBytes);
    const record = await makeImageRecord(
      { content, layers, now },
      {
        configBytes,
        layers: [{ diffId, chainId: diffId, blob }],
        sizeBytes: Number(sizeBytes),
        manifestBytes: undefined,
        manifestType: 'application/vnd.oci.image.manifest.v1+json',
      },
      hold,
    );
    await content.settled(blobsOf(record).map(({ digest }) => digest));
    signal.throwIfAborted();
    const { reference } = options;
    const tagged = reference === undefined ? [] : [reference];
    const revision = await catalog.commit({
      putImages: [{ ...record, lastTaggedAt: reference === undefined ? '' : created }],
      name: tagged.map((name) => ({ reference: name, imageId: record.id })),
      events: [...tagged.map((name) => imageTagged(record.id, name, config)), imageImported(record.id, config)],
      reply: reply(record.id),
    });
    return { id: record.id, revision };
  } finally {
    await rm(targetPath, { force: true });
    await hold.release();
  }
}
