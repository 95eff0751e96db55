import type { Volume } from '@flotilla/docker-api';
import { timestampToDate } from '@flotilla/proto';
import type { volume } from '@flotilla/proto';
import { VersionedShape } from '../model/rendered.js';

/** `GET /volumes/{name}`: the same in all versions that are served. */
export const volumeShape = new VersionedShape<volume.Volume, Volume>(
  (object) => ({
    CreatedAt: object.createdAt === undefined ? '' : `${timestampToDate(object.createdAt).toISOString().slice(0, 19)}Z`,
    Driver: object.driver,
    Labels: object.labels,
    Mountpoint: object.mountpoint,
    Name: object.name,
    Options: object.options,
    Scope: object.scope === '' ? 'local' : object.scope,
    ...(Object.keys(object.status).length === 0 ? {} : { Status: object.status }),
  }),
  [],
);
