import type { HostFacts } from './host-facts.js';
import { capabilityNames } from './capabilities.js';
import { noLimits } from './spec-input.js';
import type { SpecInput } from './spec-input.js';

/** A container that asks for nothing. For tests. */
export function plainInput(change: Partial<SpecInput> = {}): SpecInput {
  return {
    process: {
      args: ['sh'],
      env: ['PATH=/bin'],
      cwd: '',
      uid: 0,
      gid: 0,
      additionalGids: [0],
      terminal: false,
      oomScoreAdj: 0,
      noNewPrivileges: false,
      rlimits: [],
    },
    hostname: 'c0ffee',
    domainname: '',
    rootPath: 'rootfs',
    readonlyRootfs: false,
    privileged: false,
    capAdd: [],
    capDrop: [],
    mounts: [],
    shm: { kind: 'tmpfs', sizeBytes: 67108864n },
    devices: [],
    deviceRules: [],
    deviceCgroupRules: [],
    network: { kind: 'private' },
    ownsNetwork: true,
    pid: { kind: 'private' },
    ipc: { kind: 'private' },
    uts: { kind: 'private' },
    cgroup: { kind: 'host' },
    sysctls: {},
    cgroupsPath: '/test/c0ffee',
    resources: noLimits,
    seccompProfile: 'unconfined',
    annotations: {},
    ...change,
  };
}

/** A machine that can do everything. For tests. */
export function anyHost(change: Partial<HostFacts> = {}): HostFacts {
  return {
    cgroupVersion: 1,
    cgroup: {
      memory: true,
      swap: true,
      memoryReservation: true,
      swappiness: true,
      oomKillDisable: true,
      cpuShares: true,
      cpuQuota: true,
      cpuRealtime: true,
      cpuset: true,
      pids: true,
      blkioWeight: true,
      blkioWeightDevice: true,
      blkioThrottle: true,
    },
    capabilities: [...capabilityNames],
    arch: 'amd64',
    kernel: { major: 6, minor: 1 },
    cpus: 2,
    hasSysctl: () => true,
    hasQueues: true,
    propagationAt: () => 'shared',
    ...change,
  };
}
