import { linkSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { conflict, internal } from '@flotilla/errors';
import { identify, isAlive } from './process-identity.js';
import type { ProcessIdentity } from './process-identity.js';

/**
 * Make this process the only launcher of a directory (a data root, an exec root). Released by `Symbol.dispose`, or by
 * its death: a lock names its process by number, start time and boot.
 *
 * @throws EngineError `conflict` when another living launcher holds it.
 */
export function lockDirectory(dir: string): Disposable {
  const self = identify(process.pid);
  if (self === undefined) throw internal('this process is not in /proc');
  mkdirSync(dir, { recursive: true, mode: 0o711 });
  const path = join(dir, 'launcher.lock');
  const fresh = `${path}.${self.pid}`;
  const text = JSON.stringify(self);
  writeFileSync(fresh, text, { mode: 0o600 });
  try {
    while (!tryLink(fresh, path)) takeAway(path, dir);
  } finally {
    rmSync(fresh, { force: true });
  }
  return { [Symbol.dispose]: () => rmSync(path, { force: true }) };
}

// link(2) fails when the name is taken, and the content is there from the first moment.
function tryLink(from: string, to: string): boolean {
  try {
    linkSync(from, to);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false;
    throw error;
  }
}

/** Remove a dead launcher's lock. Two may try at once: what was moved away is looked at again, and put back if it lives. */
function takeAway(path: string, dir: string): void {
  refuseIfAlive(path, dir);
  const aside = `${path}.dead-${process.pid}`;
  try {
    renameSync(path, aside);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return;
    throw error;
  }
  try {
    refuseIfAlive(aside, dir);
  } catch (error) {
    tryLink(aside, path);
    throw error;
  } finally {
    rmSync(aside, { force: true });
  }
}

function refuseIfAlive(path: string, dir: string): void {
  let holder: ProcessIdentity;
  try {
    holder = JSON.parse(readFileSync(path, 'utf8')) as ProcessIdentity;
  } catch {
    return; // gone meanwhile, or cut short by a crash of the machine
  }
  if (isAlive(holder)) throw conflict(`another engine uses ${dir} (launcher with pid ${holder.pid})`);
}
