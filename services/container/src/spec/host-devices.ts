import type { Stats } from 'node:fs';
import { lstatSync, readdirSync, realpathSync, statSync } from 'node:fs';
import { join, relative } from 'node:path';
import { invalidArgument } from '@flotilla/errors';
import { hasCode, splitDevice } from '@flotilla/sys';
import type { OciDevice, OciDeviceRule } from './oci-spec.js';

export interface DeviceMapping {
  pathOnHost: string;
  /** Empty: as on the host. */
  pathInContainer: string;
  /** Some of `rwm`; empty: all. */
  permissions: string;
}

/**
 * The nodes behind `--device`: one, or all of a directory, with the rules that give access to them.
 *
 * @throws EngineError `invalidArgument` in Docker's words when there is no such device
 */
export function mappedDevices(mapping: DeviceMapping): { devices: OciDevice[]; rules: OciDeviceRule[] } {
  const { pathOnHost } = mapping;
  const inContainer = mapping.pathInContainer === '' ? pathOnHost : mapping.pathInContainer;
  const devices = findDevices(pathOnHost, inContainer);
  if (devices.length === 0) {
    throw invalidArgument(
      `error gathering device information while adding custom device "${pathOnHost}": not a device node`,
    );
  }
  const access = mapping.permissions === '' ? 'rwm' : mapping.permissions;
  const rules = devices.flatMap(({ type, major, minor }): OciDeviceRule[] =>
    type === 'p' ? [] : [{ allow: true, type, major, minor, access }],
  );
  return { devices, rules };
}

function findDevices(pathOnHost: string, inContainer: string): OciDevice[] {
  try {
    const real = realpathSync(pathOnHost);
    const stats = statSync(real);
    if (!stats.isDirectory()) return nodeOf(stats, inContainer);
    return walkDevices(real, new Set()).map((device) => ({
      ...device,
      path: join(inContainer, relative(real, device.path)),
    }));
  } catch (cause) {
    if (!hasCode(cause, 'ENOENT', 'ENOTDIR', 'EACCES', 'ELOOP')) throw cause;
    throw invalidArgument(
      `error gathering device information while adding custom device "${pathOnHost}": no such file or directory`,
      { cause },
    );
  }
}

/** Directories and nodes of /dev that a container has of its own. */
const ownInContainer = new Set(['pts', 'shm', 'fd', 'mqueue', '.lxc', '.lxd-mounts', '.udev', 'console']);

/** Every device of the host, for privileged containers. */
export function allHostDevices(): OciDevice[] {
  return walkDevices('/dev', ownInContainer);
}

function walkDevices(directory: string, leaveOut: ReadonlySet<string>): OciDevice[] {
  return readdirSync(directory, { withFileTypes: true }).flatMap((entry) => {
    if (leaveOut.has(entry.name)) return [];
    const path = join(directory, entry.name);
    if (entry.isDirectory()) return walkDevices(path, leaveOut);
    const stats = lstatSync(path, { throwIfNoEntry: false });
    return stats === undefined ? [] : nodeOf(stats, path);
  });
}

function nodeOf(stats: Stats, path: string): OciDevice[] {
  if (!stats.isCharacterDevice() && !stats.isBlockDevice()) return [];
  const type = stats.isBlockDevice() ? 'b' : 'c';
  return [{ path, type, ...splitDevice(stats.rdev), fileMode: stats.mode & 0o777, uid: stats.uid, gid: stats.gid }];
}

/** The number of a device that a limit names. @throws EngineError `invalidArgument` */
export function deviceNumber(path: string): { major: number; minor: number } {
  const stats = statSync(path, { throwIfNoEntry: false });
  if (stats === undefined) throw invalidArgument(`no such device: ${path}`);
  return splitDevice(stats.rdev);
}
