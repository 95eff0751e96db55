import { existsSync, readFileSync, readdirSync, realpathSync } from 'node:fs';
import { availableParallelism, release } from 'node:os';
import { isAbsolute, join, relative } from 'node:path';
import { readMounts } from '@flotilla/sys';
import { capabilityNames } from './capabilities.js';

/** What the machine can do, as far as a container's configuration depends on it. */
export interface HostFacts {
  /** 1 also for the hybrid layout. */
  cgroupVersion: 1 | 2;
  cgroup: CgroupFeatures;
  /** Capabilities that this process could pass on: its bounding set. */
  capabilities: string[];
  /** Go's name: `amd64`, `arm64`. */
  arch: string;
  kernel: { major: number; minor: number };
  cpus: number;
  hasSysctl: (name: string) => boolean;
  /** POSIX message queues are mounted at /dev/mqueue. */
  hasQueues: boolean;
  /** How mounts propagate at the mount point that holds `path`. */
  propagationAt: (path: string) => 'shared' | 'slave' | 'private';
}

/** Which limits the kernel and its cgroup mounts offer. */
export interface CgroupFeatures {
  memory: boolean;
  swap: boolean;
  memoryReservation: boolean;
  swappiness: boolean;
  oomKillDisable: boolean;
  cpuShares: boolean;
  cpuQuota: boolean;
  cpuRealtime: boolean;
  cpuset: boolean;
  pids: boolean;
  blkioWeight: boolean;
  blkioWeightDevice: boolean;
  blkioThrottle: boolean;
}

const goArch: Record<string, string> = { x64: 'amd64', ia32: '386', arm64: 'arm64', arm: 'arm' };

/** Looks at this machine; cheap enough to be done once at start. */
export function readHostFacts(): HostFacts {
  const cgroupVersion = existsSync('/sys/fs/cgroup/cgroup.controllers') ? 2 : 1;
  const [major = 0, minor = 0] = release()
    .split('.')
    .map((part) => Number.parseInt(part, 10));
  return {
    cgroupVersion,
    cgroup: cgroupVersion === 2 ? readCgroup2('/sys/fs/cgroup') : readCgroup1('/sys/fs/cgroup'),
    capabilities: capabilitiesOf(readFileSync('/proc/self/status', 'latin1')),
    arch: goArch[process.arch] ?? process.arch,
    kernel: { major, minor },
    cpus: availableParallelism(),
    hasSysctl: (name) => existsSync(join('/proc/sys', name.replaceAll('.', '/'))),
    hasQueues: existsSync('/dev/mqueue'),
    propagationAt,
  };
}

/** The bounding set in a /proc/<pid>/status. */
export function capabilitiesOf(status: string): string[] {
  const mask = BigInt(`0x${/^CapBnd:\s*([0-9a-f]+)/m.exec(status)?.[1] ?? '0'}`);
  return capabilityNames.filter((_, bit) => ((mask >> BigInt(bit)) & 1n) === 1n);
}

function readCgroup1(root: string): CgroupFeatures {
  const has = (file: string) => existsSync(join(root, file));
  return {
    memory: has('memory/memory.limit_in_bytes'),
    swap: has('memory/memory.memsw.limit_in_bytes'),
    memoryReservation: has('memory/memory.soft_limit_in_bytes'),
    swappiness: has('memory/memory.swappiness'),
    oomKillDisable: has('memory/memory.oom_control'),
    cpuShares: has('cpu/cpu.shares'),
    cpuQuota: has('cpu/cpu.cfs_quota_us'),
    cpuRealtime: has('cpu/cpu.rt_runtime_us'),
    cpuset: has('cpuset/cpuset.cpus'),
    pids: has('pids'),
    blkioWeight: has('blkio/blkio.weight') || has('blkio/blkio.bfq.weight'),
    blkioWeightDevice: has('blkio/blkio.weight_device') || has('blkio/blkio.bfq.weight_device'),
    blkioThrottle: has('blkio/blkio.throttle.read_bps_device'),
  };
}

function readCgroup2(root: string): CgroupFeatures {
  const controllers = readFileSync(join(root, 'cgroup.controllers'), 'utf8').trim().split(/\s+/);
  const has = (controller: string) => controllers.includes(controller);
  return {
    memory: has('memory'),
    swap: has('memory') && inSomeChild(root, 'memory.swap.max'),
    memoryReservation: has('memory'),
    swappiness: false,
    oomKillDisable: false,
    cpuShares: has('cpu'),
    cpuQuota: has('cpu'),
    cpuRealtime: false,
    cpuset: has('cpuset'),
    pids: has('pids'),
    blkioWeight: has('io'),
    blkioWeightDevice: has('io'),
    blkioThrottle: has('io'),
  };
}

/** The root cgroup has no limits, so their files are looked for one level below. */
function inSomeChild(root: string, file: string): boolean {
  return readdirSync(root, { withFileTypes: true }).some(
    (entry) => entry.isDirectory() && existsSync(join(root, entry.name, file)),
  );
}

function propagationAt(path: string): 'shared' | 'slave' | 'private' {
  const real = realpathSync(path);
  const holding = readMounts().filter(({ target }) => isWithin(real, target));
  const deepest = Math.max(...holding.map(({ target }) => target.length));
  const optional = holding.findLast(({ target }) => target.length === deepest)?.optional ?? [];
  if (optional.some((field) => field.startsWith('shared:'))) return 'shared';
  return optional.some((field) => field.startsWith('master:')) ? 'slave' : 'private';
}

function isWithin(path: string, directory: string): boolean {
  const below = relative(directory, path);
  return below === '' || (!below.startsWith('..') && !isAbsolute(below));
}
