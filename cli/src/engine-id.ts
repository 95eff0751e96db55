import { randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { dataLoss } from '@flotilla/errors';
import { writePrivateFile } from './engine-state.js';

/** The engine's UUID in `<data-root>/engine-id`, made once. @throws EngineError `dataLoss` when the file holds something else. */
export function readEngineId(dataRoot: string): string {
  const path = join(dataRoot, 'engine-id');
  let text: string;
  try {
    text = readFileSync(path, 'utf8').trim();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    const made = randomUUID();
    writePrivateFile(path, `${made}\n`);
    return made;
  }
  if (!/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(text)) throw dataLoss(`${path} does not hold a UUID`);
  return text;
}
