import { chmodSync, statSync } from 'node:fs';
import { dirname } from 'node:path';
import type { IdMappings } from '@flotilla/config';
import { invalidArgument } from '@flotilla/errors';

/**
 * Let the root of remapped containers, who is nobody special outside, through the exec root to their root file systems. What lies there is closed by itself.
 *
 * @throws EngineError `invalidArgument` when a directory above, which is not the engine's to change, is closed
 */
export function openWay(execRoot: string, { uids, gids }: IdMappings): void {
  chmodSync(execRoot, 0o711);
  for (let path = execRoot; path !== dirname(path); path = dirname(path)) {
    const { mode, uid, gid } = statSync(path);
    const bit = uid === uids[0]?.hostId ? 0o100 : gid === gids[0]?.hostId ? 0o010 : 0o001;
    if ((mode & bit) === 0) {
      throw invalidArgument(
        `a subdirectory in your exec-root path (${path}) restricts access to the remapped root uid/gid; please fix by allowing 'o+x' permissions on existing directories`,
      );
    }
  }
}
