import { access } from 'node:fs/promises';

/** Whether something is there that this process can get to; what cannot be asked counts as not there. */
export async function pathExists(path: string): Promise<boolean> {
  try {
    await access(path);
    return true;
  } catch {
    return false;
  }
}
