import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { arch, cpus, hostname, release, totalmem } from 'node:os';
import { findAppArmorParser } from '@flotilla/sys';

/** What `GET /info` and `GET /version` tell of the machine. */
export interface HostFacts {
  readonly hostname: string;
  readonly kernelVersion: string;
  readonly operatingSystem: string;
  readonly osVersion: string;
  /** As `uname -m` says it. */
  readonly machine: string;
  /** As Go says it. */
  readonly goArch: string;
  readonly cpus: number;
  readonly memoryBytes: number;
  readonly cgroupVersion: '1' | '2';
  readonly ipv4Forwarding: boolean;
  readonly hasSwapLimit: boolean;
  readonly hasAppArmor: boolean;
}

const MACHINES: Readonly<Record<string, string>> = { x64: 'x86_64', arm64: 'aarch64', arm: 'armv7l', ia32: 'i686' };
const GO_ARCHES: Readonly<Record<string, string>> = { x64: 'amd64', ia32: '386' };

const readText = (path: string): string => {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
};

/** Read them anew; the machine's answers change rarely. */
export function hostFacts(): HostFacts {
  const osRelease = new Map(
    readText('/etc/os-release')
      .split('\n')
      .map((line) => line.split('='))
      .map(([key = '', value = '']) => [key, value.replace(/^"|"$/g, '')] as const),
  );
  const cgroupVersion = existsSync('/sys/fs/cgroup/cgroup.controllers') ? '2' : '1';
  return {
    hostname: hostname(),
    kernelVersion: release(),
    operatingSystem: osRelease.get('PRETTY_NAME') ?? 'Linux',
    osVersion: osRelease.get('VERSION_ID') ?? '',
    machine: MACHINES[arch()] ?? arch(),
    goArch: GO_ARCHES[arch()] ?? arch(),
    cpus: cpus().length,
    memoryBytes: totalmem(),
    cgroupVersion,
    ipv4Forwarding: readText('/proc/sys/net/ipv4/ip_forward').trim() === '1',
    hasSwapLimit: cgroupVersion === '1' || existsSync('/proc/swaps'),
    hasAppArmor: findAppArmorParser() !== undefined,
  };
}

/** Open file descriptors of this process. */
export function openFiles(): number {
  try {
    return readdirSync('/proc/self/fd').length;
  } catch {
    return 0;
  }
}
