import { accessSync, constants, readFileSync } from 'node:fs';
import { join } from 'node:path';

const parsers = ['sbin/apparmor_parser', 'usr/sbin/apparmor_parser'];

/**
 * The program that loads AppArmor profiles on this machine; absent where the kernel does not enforce any, or nothing can load them.
 *
 * @param root where the machine's file system is
 */
export function findAppArmorParser(root = '/'): string | undefined {
  try {
    if (!readFileSync(join(root, 'sys/module/apparmor/parameters/enabled'), 'latin1').startsWith('Y')) return undefined;
  } catch {
    return undefined;
  }
  return parsers.map((path) => join(root, path)).find(isExecutable);
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}
