import { invalidArgument } from '@flotilla/errors';
import type { container } from '@flotilla/proto';

/** What limits are checked against. */
export interface Machine {
  cpus: number;
  memoryBytes: bigint;
}

const smallestMemory = 6n * 1024n * 1024n;

/**
 * Check limits as dockerd does.
 *
 * @returns warnings.
 * @throws EngineError `invalidArgument` in dockerd's words.
 */
export function validateResources(r: container.Resources, machine: Machine): string[] {
  const warnings: string[] = [];
  checkMemory(r);
  checkCpu(r, machine);
  if (r.blkioWeight > 0 && (r.blkioWeight < 10 || r.blkioWeight > 1000)) {
    throw invalidArgument('Range of blkio weight is from 10 to 1000');
  }
  for (const { path, weight } of r.blkioWeightDevice) {
    if (!path.startsWith('/')) throw invalidArgument(`bad device path in blkio weight: ${path}`);
    if (weight < 10 || weight > 1000) throw invalidArgument('Range of blkio weight is from 10 to 1000');
  }
  for (const { path } of [
    ...r.blkioDeviceReadBps,
    ...r.blkioDeviceWriteBps,
    ...r.blkioDeviceReadIops,
    ...r.blkioDeviceWriteIops,
  ]) {
    if (!path.startsWith('/')) throw invalidArgument(`bad device path in blkio throttle: ${path}`);
  }
  for (const { name, soft, hard } of r.ulimits) {
    if (!ulimitNames.has(name)) throw invalidArgument(`invalid ulimit type: ${name}`);
    if (soft < -1n || hard < -1n) throw invalidArgument(`invalid ulimit: ${name}=${soft}:${hard}`);
    if (hard !== -1n && (soft > hard || soft === -1n)) {
      throw invalidArgument(`ulimit soft limit must be less than or equal to hard limit: ${soft} > ${hard}`);
    }
  }
  for (const rule of r.deviceCgroupRules) {
    if (!/^[acb] (\d+|\*):(\d+|\*) [rwm]{1,3}$/.test(rule))
      throw invalidArgument(`invalid device cgroup rule format: '${rule}'`);
  }
  for (const device of r.devices) {
    if (device.cgroupPermissions !== '' && !/^[rwm]{1,3}$/.test(device.cgroupPermissions)) {
      throw invalidArgument(`bad device permissions: ${device.cgroupPermissions}`);
    }
  }
  const [request] = r.deviceRequests;
  if (request !== undefined) {
    const capabilities = request.capabilities.map(({ values }) => `[${values.join(' ')}]`).join(' ');
    throw invalidArgument(`could not select device driver "${request.driver}" with capabilities: [${capabilities}]`);
  }
  if (r.kernelMemoryTcpBytes > 0n) warnings.push('Specifying a kernel memory TCP limit is deprecated and ignored.');
  if (r.oomKillDisable === true && r.memoryBytes === 0n) {
    warnings.push(
      'OOM killer is disabled for the container, but no memory limit is set, this can result in the system running out of resources.',
    );
  }
  return warnings;
}

function checkMemory(r: container.Resources): void {
  if (r.memoryBytes !== 0n && r.memoryBytes < smallestMemory)
    throw invalidArgument('Minimum memory limit allowed is 6MB');
  if (r.memoryBytes > 0n && r.memorySwapBytes > 0n && r.memorySwapBytes < r.memoryBytes) {
    throw invalidArgument('Minimum memoryswap limit should be larger than memory limit, see usage');
  }
  if (r.memoryBytes === 0n && r.memorySwapBytes > 0n) {
    throw invalidArgument('You should always set the Memory limit when using Memoryswap limit, see usage');
  }
  if (r.memorySwapBytes < -1n) throw invalidArgument(`invalid memory swap limit: ${r.memorySwapBytes}`);
  const swappiness = r.memorySwappiness ?? -1n;
  if (swappiness < -1n || swappiness > 100n) {
    throw invalidArgument(`Invalid value: ${swappiness}, valid memory swappiness range is 0-100`);
  }
  if (r.memoryReservationBytes !== 0n && r.memoryReservationBytes < smallestMemory) {
    throw invalidArgument('Minimum memory reservation allowed is 6MB');
  }
  if (r.memoryBytes > 0n && r.memoryReservationBytes > r.memoryBytes) {
    throw invalidArgument('Minimum memory limit can not be less than memory reservation limit, see usage');
  }
}

function checkCpu(r: container.Resources, machine: Machine): void {
  if (r.nanoCpus > 0n && (r.cpuPeriod > 0n || r.cpuQuota > 0n)) {
    const which = r.cpuPeriod > 0n ? 'CPU Period' : 'CPU Quota';
    throw invalidArgument(`Conflicting options: Nano CPUs and ${which} cannot both be set.`);
  }
  // Two digits, as `--cpus 0.01` is the least that a quota can express.
  if (
    r.nanoCpus < 0n ||
    (r.nanoCpus > 0n && r.nanoCpus < 10_000_000n) ||
    r.nanoCpus > BigInt(machine.cpus) * 1_000_000_000n
  ) {
    throw invalidArgument(
      `Range of CPUs is from 0.01 to ${machine.cpus}.00, as there are only ${machine.cpus} CPUs available`,
    );
  }
  if (r.cpuRealtimePeriod < 0n || r.cpuRealtimeRuntime < 0n) {
    throw invalidArgument('cpu real-time period and runtime can not be less than 0');
  }
  if (r.cpuRealtimeRuntime > 0n && r.cpuRealtimeRuntime > r.cpuRealtimePeriod) {
    throw invalidArgument('cpu real-time runtime cannot be higher than cpu real-time period');
  }
  if (r.cpuQuota < -1n) throw invalidArgument('CPU cfs quota can not be less than 1ms (i.e. 1000)');
  if (r.cpuShares < 0n) throw invalidArgument(`invalid CPU shares (${r.cpuShares}): value must be a positive integer`);
  if (r.cpuPeriod !== 0n && (r.cpuPeriod < 1000n || r.cpuPeriod > 1_000_000n)) {
    throw invalidArgument('CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)');
  }
  if (r.cpuQuota > 0n && r.cpuQuota < 1000n)
    throw invalidArgument('CPU cfs quota can not be less than 1ms (i.e. 1000)');
  checkCpuset(r.cpusetCpus, machine.cpus, 'cpuset cpus', 'CPUs');
  checkCpuset(r.cpusetMems, undefined, 'cpuset mems', 'memory nodes');
}

function checkCpuset(list: string, available: number | undefined, what: string, noun: string): void {
  if (list === '') return;
  let highest = 0;
  for (const part of list.split(',')) {
    const match = /^(\d{1,5})(?:-(\d{1,5}))?$/.exec(part);
    const last = Number(match?.[2] ?? match?.[1]);
    if (match === null || last < Number(match[1])) throw invalidArgument(`Invalid value ${list} for ${what}.`);
    highest = Math.max(highest, last);
  }
  if (available !== undefined && highest >= available) {
    throw invalidArgument(
      `Requested ${noun} are not available - requested ${list}, available: ${available === 1 ? '0' : `0-${available - 1}`}.`,
    );
  }
}

const ulimitNames = new Set([
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
