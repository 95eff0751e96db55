import { readFileSync } from 'node:fs';
import { isLive } from '../containers/state.js';
import { type ContainerRecord, stateOf } from '../store/container-record.js';
import { CgroupFiles } from './cgroup-files.js';
import { readCgroupStats, systemCpu } from './cgroup-stats.js';
import { interfaceStats } from './network-stats.js';
import type { StatsSample } from './stats-sampler.js';

/** What a container uses now, undefined when it does not run. */
export function sampleContainer(record: ContainerRecord): StatsSample | undefined {
  if (!isLive(stateOf(record))) return undefined;
  const { pid } = record.container.state;
  try {
    const { cpu, memory, blkio, pids } = readCgroupStats(CgroupFiles.ofProcess(pid));
    const isOnHost = record.internals.network.kind === 'host';
    const networks = isOnHost ? undefined : interfaceStats(readFileSync(`/proc/${pid}/net/dev`, 'utf8'));
    return {
      pid,
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
