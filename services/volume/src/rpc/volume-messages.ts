import { timestampFromNs } from '@flotilla/proto';
import type { volume } from '@flotilla/proto';
import type { VolumeRecord } from '../volumes/volume-record.js';
import type { Volumes } from '../volumes/volumes.js';

/** The wire form of a volume. */
export function toVolume(volumes: Volumes, record: VolumeRecord): volume.Volume {
  const driver = volumes.driverOf(record);
  return {
    name: record.name,
    driver: record.driver,
    mountpoint: driver.pathOf(record.name),
    createdAt: timestampFromNs(BigInt(record.createdAtNs)),
    labels: { ...record.labels },
    options: { ...record.options },
    scope: driver.scope,
    anonymous: record.anonymous !== null,
    heldBy: record.holders.map(({ containerId, containerName }) => ({ containerId, containerName })),
    status: record.damage === undefined ? {} : { damage: record.damage },
  };
}
