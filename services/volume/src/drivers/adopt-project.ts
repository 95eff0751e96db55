import { closeSync, constants, openSync, opendirSync } from 'node:fs';
import { join } from 'node:path';
import { hasCode } from '@flotilla/sys';
import type { ProjectQuotas } from '@flotilla/sys';

/**
 * Give all that is below `directory`, but for the directory itself, to project `id`. Again after a crash: what has it already is left out.
 *
 * @param onEntry called for every file and directory
 */
export function adoptProject(quotas: ProjectQuotas, directory: string, id: number, onEntry: () => void): void {
  const entries = opendirSync(directory);
  try {
    for (let entry = entries.readSync(); entry !== null; entry = entries.readSync()) {
      onEntry();
      // Others cannot be opened without doing something.
      if (!entry.isDirectory() && !entry.isFile()) continue;
      adoptEntry(quotas, join(directory, entry.name), entry.isDirectory(), id, onEntry);
    }
  } finally {
    entries.closeSync();
  }
}

function adoptEntry(quotas: ProjectQuotas, path: string, isInherited: boolean, id: number, onEntry: () => void): void {
  let fd: number;
  try {
    fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch (error) {
    // A container that runs has removed or replaced it.
    if (hasCode(error, 'ENOENT', 'ELOOP')) return;
    throw error;
  }
  try {
    if (quotas.projectOf(fd).id === id) return;
    // A directory last: what has the number has it all the way down.
    if (isInherited) adoptProject(quotas, path, id, onEntry);
    quotas.setProject(fd, { id, isInherited });
  } finally {
    closeSync(fd);
  }
}
