import type { IdMappings } from '@flotilla/sys';
import type { OciDevice, OciDeviceRule, OciThrottle } from './oci-spec.js';

/** A namespace of its own, the host's, or the one behind a path (`/proc/<pid>/ns/net`, a bind-mounted file). */
export type NamespaceChoice = { kind: 'private' } | { kind: 'host' } | { kind: 'path'; path: string };

/** A user namespace that exists, and what it maps. */
export interface UserNamespace {
  path: string;
  mappings: IdMappings;
}

/** Everything that decides a container's runtime configuration; paths and numbers are resolved, nothing is looked up. */
export interface SpecInput {
  process: {
    args: string[];
    /** Complete: see `containerEnvironment`. */
    env: string[];
    /** Absolute; empty means `/`. */
    cwd: string;
    uid: number;
    gid: number;
    additionalGids: number[];
    terminal: boolean;
    consoleSize?: { height: number; width: number };
    oomScoreAdj: number;
    noNewPrivileges: boolean;
    rlimits: { name: string; soft: bigint; hard: bigint }[];
    /** Absent where the host has no AppArmor. */
    apparmorProfile?: string;
  };
  hostname: string;
  /** NIS domain name, empty for none. */
  domainname: string;
  /** Relative to the bundle, or absolute. */
  rootPath: string;
  readonlyRootfs: boolean;
  privileged: boolean;
  /** Names as given: with or without `CAP_`, `ALL`. */
  capAdd: string[];
  capDrop: string[];
  mounts: SpecMount[];
  /** What is at /dev/shm. */
  shm: { kind: 'tmpfs'; sizeBytes: bigint } | { kind: 'bind'; source: string } | { kind: 'none' };
  /** Host path of the init that is put in front of `args`; only of use with a private pid namespace. */
  initPath?: string;
  /** Beyond the runtime's own (null, zero, full, random, urandom, tty, ptmx). */
  devices: OciDevice[];
  /** Access to `devices`, added to the default rules; ignored when privileged. */
  deviceRules: OciDeviceRule[];
  /** Rules as given: `c 1:3 rwm`. */
  deviceCgroupRules: string[];
  /** Absent: Docker's lists (none when privileged). */
  maskedPaths?: string[];
  readonlyPaths?: string[];
  network: NamespaceChoice;
  /** The network namespace is this container's own, so that network sysctls may be set in it. */
  ownsNetwork: boolean;
  pid: NamespaceChoice;
  ipc: NamespaceChoice;
  uts: NamespaceChoice;
  /** Absent: the host's. */
  userNamespace?: UserNamespace;
  cgroup: NamespaceChoice;
  sysctls: Record<string, string>;
  cgroupsPath: string;
  resources: ResourceLimits;
  /** `builtin`, `unconfined`, or a profile as JSON text. */
  seccompProfile: string;
  annotations: Record<string, string>;
}

export type SpecMount =
  | {
      type: 'bind';
      source: string;
      destination: string;
      readOnly: boolean;
      /** How deep `readOnly` goes; absent: as deep as the kernel can. `top`, as before Docker 25. */
      readOnlyDepth?: 'top' | 'all';
      /** With the mounts below the source. */
      recursive: boolean;
      /** `rprivate` and so on; empty for none. */
      propagation: string;
    }
  | { type: 'tmpfs'; destination: string; options: string[] };

/** Limits in Docker's units and with its meaning of 0: none. */
export interface ResourceLimits {
  memoryBytes: bigint;
  /** Memory and swap together; -1 for unlimited, 0 for twice the memory. */
  memorySwapBytes: bigint;
  memoryReservationBytes: bigint;
  /** -1 or absent: the host's. */
  memorySwappiness?: bigint;
  oomKillDisable: boolean;
  cpuShares: bigint;
  cpuQuota: bigint;
  cpuPeriod: bigint;
  nanoCpus: bigint;
  cpuRealtimePeriod: bigint;
  cpuRealtimeRuntime: bigint;
  cpusetCpus: string;
  cpusetMems: string;
  /** Absent: the parent's; 0 or less: unlimited. */
  pidsLimit?: bigint;
  blkioWeight: number;
  blkioWeightDevices: { major: number; minor: number; weight: number }[];
  throttleReadBps: OciThrottle[];
  throttleWriteBps: OciThrottle[];
  throttleReadIops: OciThrottle[];
  throttleWriteIops: OciThrottle[];
}

export const noLimits: ResourceLimits = {
  memoryBytes: 0n,
  memorySwapBytes: 0n,
  memoryReservationBytes: 0n,
  oomKillDisable: false,
  cpuShares: 0n,
  cpuQuota: 0n,
  cpuPeriod: 0n,
  nanoCpus: 0n,
  cpuRealtimePeriod: 0n,
  cpuRealtimeRuntime: 0n,
  cpusetCpus: '',
  cpusetMems: '',
  blkioWeight: 0,
  blkioWeightDevices: [],
  throttleReadBps: [],
  throttleWriteBps: [],
  throttleReadIops: [],
  throttleWriteIops: [],
};
