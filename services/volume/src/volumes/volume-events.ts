import type { EngineEvent } from '@flotilla/store';
import type { VolumeMount, VolumeRecord } from './volume-record.js';

// Attributes as dockerd's: see moby/moby daemon/events.go and daemon/volumes.go.
const volumeEvent = (action: string, { name, driver }: VolumeRecord, attributes: Record<string, string> = {}) =>
  ({ type: 'volume', action, actorId: name, attributes: { driver, ...attributes } }) satisfies EngineEvent;

export const volumeCreated = (record: VolumeRecord): EngineEvent => volumeEvent('create', record);

export const volumeDestroyed = (record: VolumeRecord): EngineEvent => volumeEvent('destroy', record);

export const volumeMounted = (record: VolumeRecord, mount: VolumeMount): EngineEvent =>
  volumeEvent('mount', record, {
    container: mount.containerId,
    destination: mount.destination,
    propagation: mount.propagation,
    'read/write': String(!mount.readOnly),
  });

export const volumeUnmounted = (record: VolumeRecord, containerId: string): EngineEvent =>
  volumeEvent('unmount', record, { container: containerId });

export const volumesPruned = (reclaimedBytes: bigint): EngineEvent => ({
  type: 'volume',
  action: 'prune',
  actorId: '',
  attributes: { reclaimed: reclaimedBytes.toString() },
});
