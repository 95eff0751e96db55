import { familiarString } from '@flotilla/oci';
import type { image } from '@flotilla/proto';
import type { CatalogImage } from '../catalog/catalog.js';
import { timestampOf } from './image-message.js';

/** Steps that made the image, newest first; a layer that the history does not tell of is a step of its own. */
export function historyOf(
  { record, config, references }: CatalogImage,
  layerBytes: (chainId: string) => number,
): image.HistoryEntry[] {
  const layers = record.layers.map(({ chainId }) => layerBytes(chainId));
  let at = 0;
  const entries = config.history.map((step): image.HistoryEntry => {
    const sizeBytes = step.emptyLayer ? 0 : (layers[at++] ?? 0);
    return {
      id: '<missing>',
      createdAt: step.created === undefined ? undefined : timestampOf(step.created),
      createdBy: step.createdBy,
      tags: [],
      sizeBytes: BigInt(sizeBytes),
      comment: step.comment,
    };
  });
  for (const sizeBytes of layers.slice(at)) {
    entries.push({
      id: '<missing>',
      createdAt: undefined,
      createdBy: '',
      tags: [],
      sizeBytes: BigInt(sizeBytes),
      comment: '',
    });
  }
  entries.reverse();
  const newest = entries[0];
  if (newest !== undefined) {
    newest.id = record.id;
    newest.tags = references.filter(({ digest }) => digest === undefined).map(familiarString);
  }
  return entries;
}
