import { permissionDenied } from '@flotilla/errors';
import type { WriteRules } from './archive-jobs.js';

/**
 * Whether dockerd lets an archive be unpacked into `directory`, its real path in the container.
 *
 * @throws EngineError `permissionDenied` in dockerd's words.
 */
export function refuseReadOnly({ mounts, readOnlyRootfs }: WriteRules, directory: string): void {
  const holders = mounts.filter(
    ({ destination }) => directory === destination || directory.startsWith(`${destination}/`),
  );
  const innermost = holders.sort((left, right) => right.destination.length - left.destination.length)[0];
  if (innermost?.readOnly === true) throw permissionDenied('mounted volume is marked read-only');
  if (innermost === undefined && readOnlyRootfs) throw permissionDenied('container rootfs is marked read-only');
}
