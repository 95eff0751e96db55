import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import type { Accounts } from './remapped-root.js';

/** The accounts of this machine, wherever they are kept. */
export const machineAccounts: Accounts = {
  find(database, key) {
    const { stdout, status } = spawnSync('getent', [database, key], { encoding: 'utf8' });
    return status === 0 ? stdout.trim() : undefined;
  },
  subordinateIds(path) {
    try {
      return readFileSync(path, 'utf8');
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return '';
      throw error;
    }
  },
  administer(program, args) {
    // They lie in directories of the administrator's, which a service manager may leave out of PATH.
    const env = { ...process.env, PATH: `${process.env['PATH'] ?? ''}:/usr/sbin:/sbin` };
    const { error, status, stderr } = spawnSync(program, args, { encoding: 'utf8', env });
    if (error !== undefined) throw error;
    if (status !== 0) throw new Error(stderr.trim() === '' ? `${program} ended with ${status}` : stderr.trim());
  },
};
