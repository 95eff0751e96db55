import { readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { isLive } from '../containers/state.js';
import type { ContainerContext } from '../containers/context.js';
import { type ContainerRecord, type ShownContainer, stateOf } from '../store/container-record.js';
import { encodeSpec } from '../spec/index.js';
import { CgroupFiles } from './cgroup-files.js';
import { type CpuStats, readCgroupStats, systemCpu } from './cgroup-stats.js';
import { interfaceStats } from './network-stats.js';

const periodMs = 1000;
const neverRead = '0001-01-01T00:00:00Z';
const noCpu: CpuStats = {
  cpu_usage: { total_usage: 0, usage_in_kernelmode: 0, usage_in_usermode: 0 },
  throttling_data: { periods: 0, throttled_periods: 0, throttled_time: 0 },
};

export interface StatsOptions {
  /** Every second, until the container is removed. */
  readonly stream: boolean;
  /** One answer at once, without the sample before it. */
  readonly oneShot: boolean;
  readonly signal: AbortSignal;
}

interface Sample {
  readonly read: string;
  readonly cpu: CpuStats;
}

/**
 * Docker's stats objects as JSON. Nothing is measured while nobody asks. Without `stream` there is one, with the sample
 * of a second before in `precpu_stats` unless `oneShot`. A container that does not run gives an empty one.
 */
export async function* containerStats(
  { store }: ContainerContext,
  name: string,
  { stream, oneShot, signal }: StatsOptions,
): AsyncGenerator<string, void, undefined> {
  const { id } = store.resolve(name).container;
  let before: Sample | undefined;
  for (;;) {
    const record = store.get(id);
    if (record === undefined) return;
    const sampled = sample(record);
    const isFirst = before === undefined;
    // What is asked for once needs a second sample to tell how busy it is.
    if (stream || oneShot || !isFirst || sampled === undefined) {
      yield encodeSpec(statsObject(record.container, sampled, before));
      if (!stream) return;
    }
    before = sampled;
    try {
      await delay(periodMs, undefined, { signal });
    } catch {
      return;
    }
  }
}

function sample(record: ContainerRecord): (Sample & { rest: object }) | undefined {
  if (!isLive(stateOf(record))) return undefined;
  const { pid } = record.container.state;
  try {
    const { cpu, memory, blkio, pids } = readCgroupStats(CgroupFiles.ofProcess(pid));
    const isOnHost = record.internals.network.kind === 'host';
    const networks = isOnHost ? undefined : interfaceStats(readFileSync(`/proc/${pid}/net/dev`, 'utf8'));
    return {
      read: new Date().toISOString(),
      cpu: { ...cpu, ...systemCpu(readFileSync('/proc/stat', 'utf8')) },
      rest: {
        pids_stats: pids,
        blkio_stats: blkio,
        memory_stats: memory,
        ...(networks === undefined || Object.keys(networks).length === 0 ? {} : { networks }),
      },
    };
  } catch {
    // It ended in between.
    return undefined;
  }
}

function statsObject(shown: ShownContainer, now: ReturnType<typeof sample>, before: Sample | undefined): object {
  return {
    name: `/${shown.name}`,
    id: shown.id,
    read: now?.read ?? neverRead,
    preread: before?.read ?? neverRead,
    num_procs: 0,
    storage_stats: {},
    cpu_stats: now?.cpu ?? noCpu,
    precpu_stats: before?.cpu ?? noCpu,
    ...(now?.rest ?? { pids_stats: {}, blkio_stats: {}, memory_stats: {} }),
  };
}
