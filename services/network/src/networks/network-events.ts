import type { EngineEvent } from '@flotilla/store';
import type { NetworkRecord } from '../store/records.js';

/** Docker calls the driver of `none` null, and shows it so. */
function networkEvent(action: string, record: NetworkRecord, extra: Record<string, string> = {}): EngineEvent {
  return {
    type: 'network',
    action,
    actorId: record.id,
    attributes: { ...extra, name: record.name, type: record.driver },
  };
}

export const networkCreated = (record: NetworkRecord): EngineEvent => networkEvent('create', record);
export const networkDestroyed = (record: NetworkRecord): EngineEvent => networkEvent('destroy', record);
export const containerConnected = (record: NetworkRecord, containerId: string): EngineEvent =>
  networkEvent('connect', record, { container: containerId });
export const containerDisconnected = (record: NetworkRecord, containerId: string): EngineEvent =>
  networkEvent('disconnect', record, { container: containerId });
