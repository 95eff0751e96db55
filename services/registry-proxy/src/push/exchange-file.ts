import { constants } from 'node:fs';
import { open } from 'node:fs/promises';
import type { FileHandle } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { dataLoss, internal, invalidArgument } from '@flotilla/errors';
import { hasCode } from '@flotilla/sys';

/**
 * Open a link that another service laid into the exchange directory. The link stays that service's.
 *
 * @throws EngineError `invalidArgument` for a path elsewhere; `dataLoss` when its size is not `size`.
 */
export async function openExchangeFile(exchangeDir: string, path: string, size: number): Promise<FileHandle> {
  const name = basename(path);
  if (path !== join(exchangeDir, name) || !/^[\w-]{1,64}$/.test(name)) {
    throw invalidArgument('the path of a blob must be a link in the exchange directory');
  }
  let file: FileHandle;
  try {
    file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW);
  } catch (error) {
    if (hasCode(error, 'ENOENT')) throw internal('the link to the blob is gone', { cause: error });
    throw error;
  }
  const { size: actual } = await file.stat();
  if (actual === size) return file;
  await file.close();
  throw dataLoss(`the content has ${actual} bytes in place of ${size}`);
}
