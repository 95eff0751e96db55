import { randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { dataLoss } from '@flotilla/errors';
import { writePrivateFile } from './engine-state.js';

/**
 * The engine's UUID in `<data-root>/engine-id`, made once; what a power failure made empty is made again.
 *
 * @throws EngineError `dataLoss` when the file holds something else.
 */
export function readEngineId(dataRoot: string): string {
  const path = join(dataRoot, 'engine-id');
  const text = readIfThere(path).replace(/\0/g, '').trim();
  if (text === '') {
    const made = randomUUID();
    // Whoever has seen it must find it again, whatever happens.
    writePrivateFile(path, `${made}\n`, { isDurable: true });
    return made;
  }
  if (!/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(text)) throw dataLoss(`${path} does not hold a UUID`);
  return text;
}

function readIfThere(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    return '';
  }
}
