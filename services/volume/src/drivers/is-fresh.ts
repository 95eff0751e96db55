import { lstatSync, opendirSync } from 'node:fs';
import { join } from 'node:path';

/** Whether a directory is empty, or has a directory of the name `staging`. However much there is in it, little of it is read. */
export function isFresh(path: string, staging: string): boolean {
  const directory = opendirSync(path);
  try {
    if (directory.readSync() === null) return true;
  } finally {
    directory.closeSync();
  }
  return lstatSync(join(path, staging), { throwIfNoEntry: false })?.isDirectory() === true;
}
