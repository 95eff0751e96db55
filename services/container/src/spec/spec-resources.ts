import { invalidArgument } from '@flotilla/errors';
import type { CgroupFeatures } from './host-facts.js';
import type { OciDeviceRule, OciResources, OciRlimit } from './oci-spec.js';
import type { ResourceLimits, SpecInput } from './spec-input.js';

type WithoutDevices = Omit<OciResources, 'devices'>;

/** Limits in the runtime's form. What the machine cannot limit is left out, as dockerd does (create has warned of it). */
export function specResources(limits: ResourceLimits, features: CgroupFeatures): WithoutDevices {
  const resources: WithoutDevices = {};
  const memory = memoryLimits(limits, features);
  const cpu = cpuLimits(limits, features);
  const blockIO = blockIoLimits(limits, features);
  if (Object.keys(memory).length > 0) resources.memory = memory;
  if (Object.keys(cpu).length > 0) resources.cpu = cpu;
  if (Object.keys(blockIO).length > 0) resources.blockIO = blockIO;
  if (limits.pidsLimit !== undefined && features.pids) {
    resources.pids = { limit: limits.pidsLimit <= 0n ? -1n : limits.pidsLimit };
  }
  return resources;
}

function memoryLimits(limits: ResourceLimits, features: CgroupFeatures): NonNullable<OciResources['memory']> {
  const memory: NonNullable<OciResources['memory']> = {};
  if (!features.memory) return memory;
  if (limits.memoryBytes > 0n) {
    memory.limit = limits.memoryBytes;
    if (features.swap) memory.swap = limits.memorySwapBytes === 0n ? limits.memoryBytes * 2n : limits.memorySwapBytes;
  }
  if (limits.memoryReservationBytes > 0n && features.memoryReservation) {
    memory.reservation = limits.memoryReservationBytes;
  }
  if (limits.memorySwappiness !== undefined && limits.memorySwappiness >= 0n && features.swappiness) {
    memory.swappiness = limits.memorySwappiness;
  }
  if (limits.oomKillDisable && features.oomKillDisable) memory.disableOOMKiller = true;
  return memory;
}

/** Docker's period for `--cpus`: a tenth of a second. */
const cpusPeriod = 100_000n;

function cpuLimits(limits: ResourceLimits, features: CgroupFeatures): NonNullable<OciResources['cpu']> {
  const cpu: NonNullable<OciResources['cpu']> = {};
  if (limits.cpuShares > 0n && features.cpuShares) cpu.shares = limits.cpuShares;
  if (features.cpuQuota) {
    if (limits.nanoCpus > 0n) {
      cpu.period = cpusPeriod;
      cpu.quota = (limits.nanoCpus * cpusPeriod) / 1_000_000_000n;
    }
    if (limits.cpuPeriod !== 0n) cpu.period = limits.cpuPeriod;
    if (limits.cpuQuota !== 0n) cpu.quota = limits.cpuQuota;
  }
  if (features.cpuRealtime) {
    if (limits.cpuRealtimePeriod !== 0n) cpu.realtimePeriod = limits.cpuRealtimePeriod;
    if (limits.cpuRealtimeRuntime !== 0n) cpu.realtimeRuntime = limits.cpuRealtimeRuntime;
  }
  if (features.cpuset) {
    if (limits.cpusetCpus !== '') cpu.cpus = limits.cpusetCpus;
    if (limits.cpusetMems !== '') cpu.mems = limits.cpusetMems;
  }
  return cpu;
}

function blockIoLimits(limits: ResourceLimits, features: CgroupFeatures): NonNullable<OciResources['blockIO']> {
  const blockIo: NonNullable<OciResources['blockIO']> = {};
  if (limits.blkioWeight > 0 && features.blkioWeight) blockIo.weight = limits.blkioWeight;
  if (limits.blkioWeightDevices.length > 0 && features.blkioWeightDevice) {
    blockIo.weightDevice = limits.blkioWeightDevices;
  }
  if (!features.blkioThrottle) return blockIo;
  if (limits.throttleReadBps.length > 0) blockIo.throttleReadBpsDevice = limits.throttleReadBps;
  if (limits.throttleWriteBps.length > 0) blockIo.throttleWriteBpsDevice = limits.throttleWriteBps;
  if (limits.throttleReadIops.length > 0) blockIo.throttleReadIOPSDevice = limits.throttleReadIops;
  if (limits.throttleWriteIops.length > 0) blockIo.throttleWriteIOPSDevice = limits.throttleWriteIops;
  return blockIo;
}

/** null, zero, full, random, urandom, tty and console; ptmx, pts and making nodes are added by the runtime. */
const defaultDeviceRules: readonly OciDeviceRule[] = [
  { allow: false, access: 'rwm' },
  { allow: true, type: 'c', major: 1, minor: 5, access: 'rwm' },
  { allow: true, type: 'c', major: 1, minor: 3, access: 'rwm' },
  { allow: true, type: 'c', major: 1, minor: 9, access: 'rwm' },
  { allow: true, type: 'c', major: 1, minor: 8, access: 'rwm' },
  { allow: true, type: 'c', major: 5, minor: 0, access: 'rwm' },
  { allow: true, type: 'c', major: 5, minor: 1, access: 'rwm' },
  { allow: false, type: 'c', major: 10, minor: 229, access: 'rwm' },
];

export function deviceRules(input: SpecInput): OciDeviceRule[] {
  if (input.privileged) return [{ allow: true, access: 'rwm' }];
  return [...defaultDeviceRules, ...input.deviceRules, ...input.deviceCgroupRules.map(parseDeviceCgroupRule)];
}

/** `c 1:3 rwm`, with `*` for any number. @throws EngineError `invalidArgument` */
export function parseDeviceCgroupRule(rule: string): OciDeviceRule {
  const match = /^([acb]) (\d+|\*):(\d+|\*) ([rwm]{1,3})$/.exec(rule);
  if (match === null) throw invalidArgument(`invalid device cgroup rule format: '${rule}'`);
  const [, type, major, minor, access = ''] = match;
  return {
    allow: true,
    type: type as 'a' | 'b' | 'c',
    ...(major === '*' ? {} : { major: Number(major) }),
    ...(minor === '*' ? {} : { minor: Number(minor) }),
    access,
  };
}

const rlimitNames = new Set([
  'as',
  'core',
  'cpu',
  'data',
  'fsize',
  'locks',
  'memlock',
  'msgqueue',
  'nice',
  'nofile',
  'nproc',
  'rss',
  'rtprio',
  'rttime',
  'sigpending',
  'stack',
]);
const unlimited = (1n << 64n) - 1n;

/** Resource limits of the process; -1 means unlimited. @throws EngineError `invalidArgument` */
export function specRlimits(limits: SpecInput['process']['rlimits']): OciRlimit[] {
  return limits.map(({ name, soft, hard }) => {
    if (!rlimitNames.has(name)) throw invalidArgument(`invalid ulimit type: ${name}`);
    const value = (limit: bigint) => (limit < 0n ? unlimited : limit);
    if (value(soft) > value(hard)) {
      throw invalidArgument(`ulimit soft limit must be less than or equal to hard limit: ${soft} > ${hard}`);
    }
    return { type: `RLIMIT_${name.toUpperCase()}`, soft: value(soft), hard: value(hard) };
  });
}
