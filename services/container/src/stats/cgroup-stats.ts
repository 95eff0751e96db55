import { availableParallelism, totalmem } from 'node:os';
import type { CgroupFiles } from './cgroup-files.js';

/** Docker's names: moby/moby api/types/container/stats.go. Times are nanoseconds, sizes bytes. */
export interface CpuUsage {
  total_usage: number;
  percpu_usage?: number[];
  usage_in_kernelmode: number;
  usage_in_usermode: number;
}
export interface CpuStats {
  cpu_usage: CpuUsage;
  system_cpu_usage?: number;
  online_cpus?: number;
  throttling_data: { periods: number; throttled_periods: number; throttled_time: number };
}
export interface BlkioEntry {
  major: number;
  minor: number;
  op: string;
  value: number;
}
export interface CgroupStats {
  cpu: CpuStats;
  memory: Record<string, unknown>;
  blkio: Record<string, BlkioEntry[] | null>;
  pids: { current?: number; limit?: number | bigint };
}

const nsPerUs = 1000;
/** USER_HZ is 100 on every architecture that Linux offers to programs: 10 ms. */
const nsPerTick = 10_000_000;

export function readCgroupStats(files: CgroupFiles): CgroupStats {
  return files.version === 1 ? readVersion1(files) : readVersion2(files);
}

/** Pids limits of `max` are shown as the largest number, as Docker's own JSON has them. */
function pidsOf(files: CgroupFiles): CgroupStats['pids'] {
  const current = files.number('pids', 'pids.current');
  const isUnlimited = files.read('pids', 'pids.max').trim() === 'max';
  const limit = isUnlimited ? 2n ** 64n - 1n : files.number('pids', 'pids.max');
  return { ...(current === undefined ? {} : { current }), ...(limit === undefined ? {} : { limit }) };
}

function readVersion1(files: CgroupFiles): CgroupStats {
  const total = files.number('cpuacct', 'cpuacct.usage') ?? 0;
  const { user = 0, system = 0 } = files.table('cpuacct', 'cpuacct.stat');
  const perCpu = files.read('cpuacct', 'cpuacct.usage_percpu').trim().split(/\s+/).filter(Boolean).map(Number);
  const throttling = throttlingOf(files);
  const limit = files.number('memory', 'memory.limit_in_bytes') ?? totalmem();
  const blkio = (file: string): BlkioEntry[] => blkioEntries(files.read('blkio', file));
  return {
    cpu: {
      cpu_usage: {
        total_usage: total,
        ...(perCpu.length === 0 ? {} : { percpu_usage: perCpu }),
        usage_in_kernelmode: Number(system) * nsPerTick,
        usage_in_usermode: Number(user) * nsPerTick,
      },
      throttling_data: throttling,
    },
    memory: {
      usage: files.number('memory', 'memory.usage_in_bytes') ?? 0,
      max_usage: files.number('memory', 'memory.max_usage_in_bytes') ?? 0,
      stats: files.table('memory', 'memory.stat'),
      ...failures(files.number('memory', 'memory.failcnt')),
      limit: Math.min(limit, totalmem()),
    },
    blkio: {
      io_service_bytes_recursive: firstWithEntries(
        blkio('blkio.throttle.io_service_bytes_recursive'),
        blkio('blkio.throttle.io_service_bytes'),
      ),
      io_serviced_recursive: firstWithEntries(
        blkio('blkio.throttle.io_serviced_recursive'),
        blkio('blkio.throttle.io_serviced'),
      ),
      io_queue_recursive: blkio('blkio.io_queued_recursive'),
      io_service_time_recursive: blkio('blkio.io_service_time_recursive'),
      io_wait_time_recursive: blkio('blkio.io_wait_time_recursive'),
      io_merged_recursive: blkio('blkio.io_merged_recursive'),
      io_time_recursive: blkio('blkio.time_recursive'),
      sectors_recursive: blkio('blkio.sectors_recursive'),
    },
    pids: pidsOf(files),
  };
}

function readVersion2(files: CgroupFiles): CgroupStats {
  const cpu = files.table('cpu', 'cpu.stat');
  const microseconds = (name: string): number => Number(cpu[name] ?? 0) * nsPerUs;
  const limit = files.number('memory', 'memory.max') ?? totalmem();
  const failcnt = Number(files.table('memory', 'memory.events')['oom'] ?? 0);
  return {
    cpu: {
      cpu_usage: {
        total_usage: microseconds('usage_usec'),
        usage_in_kernelmode: microseconds('system_usec'),
        usage_in_usermode: microseconds('user_usec'),
      },
      throttling_data: throttlingOf(files),
    },
    memory: {
      usage: files.number('memory', 'memory.current') ?? 0,
      stats: files.table('memory', 'memory.stat'),
      ...failures(failcnt),
      limit: Math.min(limit, totalmem()),
    },
    blkio: {
      io_service_bytes_recursive: ioEntries(files.read('io', 'io.stat')),
      io_serviced_recursive: null,
      io_queue_recursive: null,
      io_service_time_recursive: null,
      io_wait_time_recursive: null,
      io_merged_recursive: null,
      io_time_recursive: null,
      sectors_recursive: null,
    },
    pids: pidsOf(files),
  };
}

function throttlingOf(files: CgroupFiles): CpuStats['throttling_data'] {
  const stat = files.table('cpu', 'cpu.stat');
  // v1 counts nanoseconds, v2 microseconds.
  const { nr_periods: periods = 0, nr_throttled: throttled = 0, throttled_time: ns, throttled_usec: us = 0 } = stat;
  return {
    periods: Number(periods),
    throttled_periods: Number(throttled),
    throttled_time: ns === undefined ? Number(us) * nsPerUs : Number(ns),
  };
}

function failures(count: number | undefined): { failcnt?: number } {
  return count === undefined || count === 0 ? {} : { failcnt: count };
}

function firstWithEntries(...candidates: BlkioEntry[][]): BlkioEntry[] {
  return candidates.find((entries) => entries.length > 0) ?? [];
}

/** Lines of `major:minor Operation value`, or `major:minor value`. */
function blkioEntries(text: string): BlkioEntry[] {
  return text.split('\n').flatMap((line) => {
    const [, major, minor, op = '', value] = /^(\d+):(\d+)(?: ([A-Za-z]+))? (\d+)$/.exec(line) ?? [];
    return value === undefined ? [] : [{ major: Number(major), minor: Number(minor), op, value: Number(value) }];
  });
}

/** Lines of `major:minor rbytes=n wbytes=n ...`. */
function ioEntries(text: string): BlkioEntry[] {
  return text.split('\n').flatMap((line) => {
    const [, major, minor, rest = ''] = /^(\d+):(\d+) (.*)$/.exec(line) ?? [];
    if (major === undefined) return [];
    return [...rest.matchAll(/\b(rbytes|wbytes)=(\d+)/g)].map(([, name, value]) => ({
      major: Number(major),
      minor: Number(minor),
      op: name === 'rbytes' ? 'read' : 'write',
      value: Number(value),
    }));
  });
}

/** Time that all processors together have spent since boot, and their number; from a /proc/stat. */
export function systemCpu(procStat: string): { system_cpu_usage: number; online_cpus: number } {
  const [, ...ticks] = (procStat.split('\n', 1)[0] ?? '').trim().split(/\s+/);
  // guest and guest_nice are part of user and nice.
  const sum = ticks.slice(0, 8).reduce((total, text) => total + Number(text), 0);
  const cpus = procStat.match(/^cpu\d+ /gm)?.length ?? availableParallelism();
  return { system_cpu_usage: sum * nsPerTick, online_cpus: cpus };
}
