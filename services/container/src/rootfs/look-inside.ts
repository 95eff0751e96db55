import { closeSync, constants, fstatSync, mkdirSync, openSync, readSync, statSync } from 'node:fs';
import { invalidArgument } from '@flotilla/errors';
import { hasCode } from '@flotilla/sys';
import { type ResolvedUser, resolveUser } from './user-spec.js';

const largestUserFileBytes = 8 * 1024 * 1024;

/** Resolve a user in the present root. @throws EngineError `invalidArgument`. */
export function resolveUserInside(user: string, groups: readonly string[]): ResolvedUser {
  return resolveUser(user, groups, readRegularFile('/etc/passwd'), readRegularFile('/etc/group'));
}

/** Make the working directory in the present root, as dockerd does: owned by root, 0755. */
export function makeWorkingDir(path: string): void {
  try {
    if (statSync(path).isDirectory()) return;
    throw invalidArgument(`Cannot mkdir: ${path} is not a directory`);
  } catch (error) {
    if (hasCode(error, 'ENOTDIR')) throw invalidArgument(`Cannot mkdir: ${path} is not a directory`, { cause: error });
    if (hasCode(error, 'ELOOP'))
      throw invalidArgument(`Cannot mkdir: ${path}: too many levels of symbolic links`, { cause: error });
    if (!hasCode(error, 'ENOENT')) throw error;
  }
  try {
    mkdirSync(path, { recursive: true, mode: 0o755 });
  } catch (error) {
    if (hasCode(error, 'EEXIST', 'ENOTDIR', 'ENOENT')) {
      throw invalidArgument(`Cannot mkdir: ${path} is not a directory`, { cause: error });
    }
    throw error;
  }
}

/** The empty file by which programs know that they run in a container of Docker's. Whatever an image has there stays. */
export function makeDockerEnv(): void {
  try {
    closeSync(openSync('/.dockerenv', constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL, 0o755));
  } catch (error) {
    if (!hasCode(error, 'EEXIST')) throw error;
  }
}

// An image may have anything at these paths: a FIFO or a device would block or do worse when opened.
function readRegularFile(path: string): string | undefined {
  let fd: number;
  try {
    if (!statSync(path).isFile()) return undefined;
    fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOCTTY);
  } catch (error) {
    if (hasCode(error, 'ENOENT', 'ENOTDIR', 'ELOOP')) return undefined;
    throw error;
  }
  try {
    const stat = fstatSync(fd);
    if (!stat.isFile()) return undefined;
    if (stat.size > largestUserFileBytes) throw invalidArgument(`${path} of the image is larger than 8 MiB`);
    const bytes = Buffer.alloc(stat.size);
    let filled = 0;
    while (filled < bytes.length) {
      const read = readSync(fd, bytes, filled, bytes.length - filled, null);
      if (read === 0) break;
      filled += read;
    }
    return bytes.toString('utf8', 0, filled);
  } finally {
    closeSync(fd);
  }
}
