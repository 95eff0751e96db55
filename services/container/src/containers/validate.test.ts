import { container, network } from '@flotilla/proto';
import { describe, expect, it } from 'vitest';
import { planNetworks } from './network-plan.js';
import { validateConfig, validateHostConfig } from './validate-config.js';
import { validateResources } from './validate-resources.js';

const machine = { cpus: 2, memoryBytes: 1n << 34n };
const resources = (fields: Partial<container.Resources>) => () =>
  validateResources(container.Resources.fromPartial(fields), machine);
const config = (fields: Partial<container.ContainerConfig>) => () =>
  validateConfig(container.ContainerConfig.fromPartial(fields));
const host =
  (fields: Partial<container.HostConfig>, own: Partial<container.ContainerConfig> = {}) =>
  () =>
    validateHostConfig(
      container.ContainerConfig.fromPartial(own),
      container.HostConfig.fromPartial(fields),
      new Set(['runc']),
    );

describe('limits that could never work', () => {
  it.each<[Partial<container.Resources>, string]>([
    [{ memoryBytes: 1024n }, 'Minimum memory limit allowed is 6MB'],
    [{ memoryBytes: -1n }, 'Minimum memory limit allowed is 6MB'],
    [{ memorySwapBytes: 1n << 30n }, 'You should always set the Memory limit when using Memoryswap limit, see usage'],
    [
      { memoryBytes: 1n << 30n, memorySwapBytes: 1n << 20n },
      'Minimum memoryswap limit should be larger than memory limit, see usage',
    ],
    [{ memorySwappiness: 101n }, 'Invalid value: 101, valid memory swappiness range is 0-100'],
    [{ nanoCpus: 3_000_000_000n }, 'Range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available'],
    [{ nanoCpus: 1_000_000_000n, cpuQuota: 5000n }, 'Conflicting options: Nano CPUs and CPU Quota cannot both be set.'],
    [{ cpuPeriod: 10n }, 'CPU cfs period can not be less than 1ms'],
    [{ cpuQuota: 10n }, 'CPU cfs quota can not be less than 1ms (i.e. 1000)'],
    [{ cpusetCpus: '0-7' }, 'Requested CPUs are not available - requested 0-7, available: 0-1.'],
    [{ cpusetCpus: 'x' }, 'Invalid value x for cpuset cpus.'],
    [{ blkioWeight: 5 }, 'Range of blkio weight is from 10 to 1000'],
    [
      { ulimits: [{ name: 'nofile', soft: 5n, hard: 4n }] },
      'ulimit soft limit must be less than or equal to hard limit: 5 > 4',
    ],
    [{ ulimits: [{ name: 'files', soft: 5n, hard: 4n }] }, 'invalid ulimit type: files'],
    [{ ulimits: [{ name: 'nofile', soft: -2n, hard: -2n }] }, 'invalid ulimit: nofile=-2:-2'],
    [{ blkioWeightDevice: [{ path: '/dev/null', weight: 5 }] }, 'Range of blkio weight is from 10 to 1000'],
    [{ blkioDeviceReadBps: [{ path: 'null', rate: 5n }] }, 'bad device path in blkio throttle: null'],
    [
      { cpuRealtimePeriod: 5000n, cpuRealtimeRuntime: 6000n },
      'cpu real-time runtime cannot be higher than cpu real-time period',
    ],
    [{ cpuQuota: -5n }, 'CPU cfs quota can not be less than 1ms (i.e. 1000)'],
    [{ memoryReservationBytes: 5n }, 'Minimum memory reservation allowed is 6MB'],
    [
      { memoryBytes: 1n << 24n, memoryReservationBytes: 1n << 25n },
      'Minimum memory limit can not be less than memory reservation limit, see usage',
    ],
    [{ deviceCgroupRules: ['x'] }, "invalid device cgroup rule format: 'x'"],
  ])('refuses %o', (fields, message) => {
    expect(resources(fields)).toThrow(message);
  });

  it('accepts sensible ones', () => {
    expect(
      resources({
        memoryBytes: 1n << 26n,
        memorySwapBytes: -1n,
        nanoCpus: 500_000_000n,
        cpusetCpus: '0,1',
        pidsLimit: 10n,
      })(),
    ).toEqual([]);
  });
});

describe('configurations that could never work', () => {
  it.each<[Partial<container.ContainerConfig>, string]>([
    [{ workingDir: 'a' }, "the working directory 'a' is invalid, it needs to be an absolute path"],
    [{ env: ['=x'] }, 'invalid environment variable: =x'],
    [{ stopSignal: 'SIGNOPE' }, 'invalid signal: SIGNOPE'],
    [{ exposedPorts: ['x/tcp'] }, 'invalid port specification: "x"'],
    [{ macAddress: 'zz' }, 'zz is not a valid mac address'],
    [{ hostname: 'a b' }, 'invalid hostname format: a b'],
    [
      {
        healthcheck: { test: [], intervalNs: 10n, timeoutNs: 0n, retries: 0n, startPeriodNs: 0n, startIntervalNs: 0n },
      },
      'Interval in Healthcheck cannot be less than 1ms',
    ],
  ])('refuses %o', (fields, message) => {
    expect(config(fields)).toThrow(message);
  });

  it.each<[Partial<container.HostConfig>, string]>([
    [
      { autoRemove: true, restartPolicy: { name: 'always', maximumRetryCount: 0 } },
      "can't create 'AutoRemove' container with restart policy",
    ],
    [{ restartPolicy: { name: 'x', maximumRetryCount: 0 } }, "invalid restart policy: unknown policy 'x'"],
    [{ extraHosts: ['nothing'] }, 'bad format for add-host: "nothing"'],
    [{ extraHosts: ['a:b'] }, 'invalid IP address in add-host: "b"'],
    [{ capAdd: ['nope'] }, 'invalid CapAdd: unknown capability: "CAP_NOPE"'],
    [{ securityOpt: ['what'] }, 'invalid --security-opt 1: "what"'],
    [{ securityOpt: ['what=1'] }, 'invalid --security-opt 2: "what=1"'],
    [{ ipcMode: 'x' }, 'invalid IPC mode: x'],
    [{ pidMode: 'x' }, 'invalid PID mode: x'],
    [{ runtime: 'x' }, 'unknown or invalid runtime name: x'],
    [{ oomScoreAdj: 2000 }, 'Invalid value 2000, range for oom score adj is [-1000, 1000]'],
    [{ shmSizeBytes: -1n }, 'SHM size can not be less than 0'],
    [
      { networkMode: 'container:x', publishAllPorts: true },
      'conflicting options: port publishing and the container type network mode',
    ],
    [
      { networkMode: 'host', sysctls: { 'net.ipv4.ip_forward': '1' } },
      'sysctl "net.ipv4.ip_forward" not allowed in host network namespace',
    ],
  ])('refuses %o', (fields, message) => {
    expect(host(fields)).toThrow(message);
  });

  it.each([
    ['host', 'conflicting options: mac-address and the network mode'],
    ['container:x', 'conflicting options: mac-address and the network mode'],
    ['container:', 'Invalid network mode: invalid container format container:<name|id>'],
  ])('refuses a MAC address with network mode %s', (networkMode, message) => {
    expect(host({ networkMode }, { macAddress: '02:42:ac:11:00:02' })).toThrow(message);
  });

  it("refuses a host name together with another container's network", () => {
    expect(host({ networkMode: 'container:x' }, { hostname: 'h' })).toThrow(
      'conflicting options: hostname and the network mode',
    );
  });

  it('accepts what dockerd accepts', () => {
    expect(
      host({
        capAdd: ['ALL', 'cap_net_admin', 'SYS_TIME'],
        securityOpt: ['seccomp=unconfined', 'no-new-privileges', 'label:disable'],
        extraHosts: ['a:1.2.3.4', 'b=::1', 'c:host-gateway'],
        ipcMode: 'container:x',
        runtime: 'runc',
      }),
    ).not.toThrow();
  });
});

describe('planNetworks', () => {
  const endpoint = (fields: Partial<network.EndpointRequest>) => network.EndpointRequest.fromPartial(fields);
  const plan = (mode: string, ...requested: network.EndpointRequest[]) =>
    planNetworks({ macAddress: '', networkDisabled: false }, mode, [], requested);

  it('puts the network of the mode first', () => {
    expect(plan('front', endpoint({ network: 'back' }), endpoint({ network: 'front', aliases: ['f'] }))).toMatchObject({
      kind: 'networks',
      endpoints: [{ network: 'front', aliases: ['f'] }, { network: 'back' }],
    });
    expect(plan('bridge', endpoint({ network: 'default' }))).toMatchObject({ endpoints: [{ network: 'bridge' }] });
  });

  it('takes a MAC address from either place, and no two', () => {
    const macAddress = '02:42:ac:11:00:02';
    const own = { macAddress, networkDisabled: false };
    expect(planNetworks(own, 'front', [], [])).toMatchObject({ endpoints: [{ macAddress }] });
    const other = endpoint({ network: 'front', macAddress: '02:42:ac:11:00:03' });
    expect(() => planNetworks(own, 'front', [], [other])).toThrow('the container-wide MAC address must match');
  });

  it('knows the modes without networks', () => {
    expect(plan('none')).toEqual({ kind: 'none' });
    expect(plan('host')).toEqual({ kind: 'host' });
    expect(plan('container:db')).toEqual({ kind: 'container', target: 'db' });
  });

  it('refuses what cannot be combined', () => {
    expect(() => plan('host', endpoint({ network: 'x' }))).toThrow('container sharing network namespace');
    expect(() => plan('none', endpoint({ network: 'x' }))).toThrow('private (none) mode');
    expect(() => plan('x', endpoint({ network: 'none' }))).toThrow('private (none) mode');
    expect(() => plan('bridge', endpoint({ network: 'bridge', ipv4Address: '1.2.3.4' }))).toThrow(
      'user specified IP address is supported on user defined networks only',
    );
    expect(() => plan('bridge', endpoint({ network: 'bridge', aliases: ['a'] }))).toThrow(
      'network-scoped alias is supported only',
    );
  });
});
