import type { EngineEvent } from '@flotilla/store';
import { familiarName, familiarString } from '@flotilla/oci';
import type { Digest, ImageConfig, Reference } from '@flotilla/oci';

// One constructor per event. Actor and attributes as dockerd's LogImageEvent has them: the image's labels and `name`.

function event(action: string, actorId: string, name: string, config: ImageConfig): EngineEvent {
  const attributes = { ...Object.fromEntries(config.run.labels), name };
  return { type: 'image', action, actorId, attributes, scope: 'local' };
}

export const imagePulled = (reference: Reference, config: ImageConfig): EngineEvent =>
  event('pull', familiarString(reference), familiarName(reference), config);

export const imagePushed = (reference: Reference, config: ImageConfig): EngineEvent =>
  event('push', familiarString(reference), familiarName(reference), config);

export const imageTagged = (id: Digest, reference: Reference, config: ImageConfig): EngineEvent =>
  event('tag', id, familiarString(reference), config);

export const imageUntagged = (id: Digest, config: ImageConfig): EngineEvent => event('untag', id, id, config);

export const imageDeleted = (id: Digest, config: ImageConfig): EngineEvent => event('delete', id, id, config);

export const imageLoaded = (id: Digest, config: ImageConfig): EngineEvent => event('load', id, id, config);

export const imageSaved = (id: Digest, config: ImageConfig): EngineEvent => event('save', id, id, config);

export const imageImported = (id: Digest, config: ImageConfig): EngineEvent => event('import', id, id, config);

export const imagesPruned = (reclaimedBytes: number): EngineEvent => ({
  type: 'image',
  action: 'prune',
  actorId: '',
  attributes: { reclaimed: String(reclaimedBytes) },
  scope: 'local',
});
