import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { makeTempDir } from '@flotilla/testkit';
import { describe, expect, it } from 'vitest';
import { encodeSpec } from '../spec/index.js';
import { CgroupFiles } from './cgroup-files.js';
import { readCgroupStats, systemCpu } from './cgroup-stats.js';
import { interfaceStats } from './network-stats.js';

const makeFiles = (root: string, files: Record<string, string>): void => {
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(join(root, path, '..'), { recursive: true });
    writeFileSync(join(root, path), text);
  }
};

describe('cgroup stats', () => {
  it('of cgroup v1, with numbers that no double holds', async () => {
    await using dir = await makeTempDir('cgroup');
    makeFiles(dir.path, {
      'cpuacct/c/cpuacct.usage': '1234567\n',
      'cpuacct/c/cpuacct.stat': 'user 3\nsystem 4\n',
      'cpuacct/c/cpuacct.usage_percpu': '1000000 234567 \n',
      'cpu/c/cpu.stat': 'nr_periods 5\nnr_throttled 6\nthrottled_time 7\n',
      'memory/c/memory.usage_in_bytes': '4096\n',
      'memory/c/memory.max_usage_in_bytes': '8192\n',
      'memory/c/memory.limit_in_bytes': '67108864\n',
      'memory/c/memory.failcnt': '2\n',
      'memory/c/memory.stat': 'cache 12\nhierarchical_memory_limit 9223372036854771712\n',
      'blkio/c/blkio.throttle.io_service_bytes_recursive': '8:0 Read 10\n8:0 Write 20\nTotal 30\n',
      'pids/c/pids.current': '3\n',
      'pids/c/pids.max': 'max\n',
    });
    const table = '9:name=systemd:/\n8:pids:/c\n7:blkio:/c\n4:memory:/c\n2:cpuacct:/c\n1:cpu:/c\n0::/\n';
    const files = new CgroupFiles(table, dir.path);
    expect(files.version).toBe(1);
    const stats = readCgroupStats(files);
    expect(stats.cpu).toEqual({
      cpu_usage: {
        total_usage: 1234567,
        percpu_usage: [1000000, 234567],
        usage_in_usermode: 30_000_000,
        usage_in_kernelmode: 40_000_000,
      },
      throttling_data: { periods: 5, throttled_periods: 6, throttled_time: 7 },
    });
    expect(stats.memory).toMatchObject({ usage: 4096, max_usage: 8192, limit: 67108864, failcnt: 2 });
    expect(stats.blkio['io_service_bytes_recursive']).toEqual([
      { major: 8, minor: 0, op: 'Read', value: 10 },
      { major: 8, minor: 0, op: 'Write', value: 20 },
    ]);
    const text = encodeSpec(stats);
    expect(text).toContain('"hierarchical_memory_limit":9223372036854771712');
    expect(text).toContain('"pids":{"current":3,"limit":18446744073709551615}');
  });

  it('of cgroup v2', async () => {
    await using dir = await makeTempDir('cgroup');
    makeFiles(dir.path, {
      'c/cpu.stat': 'usage_usec 12\nuser_usec 7\nsystem_usec 5\nnr_periods 1\nnr_throttled 2\nthrottled_usec 3\n',
      'c/memory.current': '4096\n',
      'c/memory.max': '1048576\n',
      'c/memory.stat': 'anon 1\nfile 2\n',
      'c/memory.events': 'low 0\noom 3\noom_kill 1\n',
      'c/io.stat': '8:0 rbytes=1 wbytes=2 rios=3 wios=4\n',
      'c/pids.current': '2\n',
      'c/pids.max': '20\n',
    });
    const stats = readCgroupStats(new CgroupFiles('0::/c\n', dir.path));
    expect(stats.cpu.cpu_usage).toEqual({ total_usage: 12_000, usage_in_usermode: 7000, usage_in_kernelmode: 5000 });
    expect(stats.cpu.throttling_data).toEqual({ periods: 1, throttled_periods: 2, throttled_time: 3000 });
    expect(stats.memory).toEqual({ usage: 4096, limit: 1048576, failcnt: 3, stats: { anon: 1, file: 2 } });
    expect(stats.blkio['io_service_bytes_recursive']).toEqual([
      { major: 8, minor: 0, op: 'read', value: 1 },
      { major: 8, minor: 0, op: 'write', value: 2 },
    ]);
    expect(stats.pids).toEqual({ current: 2, limit: 20 });
  });

  it('of the machine and its interfaces', () => {
    expect(systemCpu('cpu  1 2 3 4 5 6 7 8 90 90\ncpu0 1\ncpu1 1\nintr 5\n')).toEqual({
      system_cpu_usage: 360_000_000,
      online_cpus: 2,
    });
    const text =
      'Inter-| Receive | Transmit\n face |bytes\n    lo: 9 9 0 0 0 0 0 0 9 9 0 0 0 0 0 0\n  eth0: 1 2 3 4 0 0 0 0 5 6 7 8 0 0 0 0\n';
    expect(interfaceStats(text)).toEqual({
      eth0: {
        ...{ rx_bytes: 1, rx_packets: 2, rx_errors: 3, rx_dropped: 4 },
        ...{ tx_bytes: 5, tx_packets: 6, tx_errors: 7, tx_dropped: 8 },
      },
    });
  });
});
