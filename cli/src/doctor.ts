import { accessSync, constants, existsSync, readFileSync } from 'node:fs';
import { release } from 'node:os';
import { delimiter, join } from 'node:path';

/** One thing that the engine needs of the machine. */
export interface Finding {
  what: string;
  isFine: boolean;
  /** What to do about it. */
  remedy: string;
}

const programs: readonly (readonly [program: string, debianPackage: string])[] = [
  ['runc', 'runc'],
  ['containerd-shim-runc-v2', 'containerd'],
  ['nats-server', 'nats-server'],
  ['nft', 'nftables'],
  ['igzip', 'isal'],
  ['zstd', 'zstd'],
  ['pigz', 'pigz'],
  ['tini-static', 'tini'],
  ['mount', 'mount'],
  ['setpriv', 'util-linux'],
];

const files: readonly (readonly [path: string, debianPackage: string])[] = [
  ['/etc/ssl/certs/ca-certificates.crt', 'ca-certificates'],
  ['/usr/share/containers/seccomp.json', 'golang-github-containers-common'],
];

const oldestKernel = [5, 10] as const;

/** Look at everything the engine needs; nothing is changed. */
export function examineMachine(): Finding[] {
  return [
    finding('runs as root', process.getuid?.() === 0, 'start it as root'),
    finding(`Linux ${oldestKernel.join('.')} or newer (${release()})`, isNewEnough(release()), 'use a newer kernel'),
    finding('cgroups on /sys/fs/cgroup', hasCgroups(), 'mount the cgroup hierarchies'),
    finding(
      'overlay file system',
      hasOverlay(),
      'load the overlay module; without it containers copy their images (storage driver vfs)',
    ),
    ...programs.map(([program, source]) => finding(program, isOnPath(program), `apt-get install ${source}`)),
    ...files.map(([path, source]) => finding(path, existsSync(path), `apt-get install ${source}`)),
  ];
}

const finding = (what: string, isFine: boolean, remedy: string): Finding => ({ what, isFine, remedy });

function isNewEnough(version: string): boolean {
  const [major = 0, minor = 0] = version.split('.').map(Number);
  return major > oldestKernel[0] || (major === oldestKernel[0] && minor >= oldestKernel[1]);
}

// The unified hierarchy, or the one of version 1 with the controllers beside each other.
const hasCgroups = () => existsSync('/sys/fs/cgroup/cgroup.controllers') || existsSync('/sys/fs/cgroup/memory');

function hasOverlay(): boolean {
  return (
    readFileSync('/proc/filesystems', 'utf8').includes('\toverlay\n') ||
    existsSync(`/lib/modules/${release()}/kernel/fs/overlayfs`)
  );
}

function isOnPath(program: string): boolean {
  const directories = [...(process.env['PATH'] ?? '').split(delimiter), '/usr/local/sbin', '/usr/sbin', '/sbin'];
  return directories.some((directory) => {
    try {
      accessSync(join(directory, program), constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}
