import { isEngineError } from '@flotilla/errors';
import { describe, expect, it } from 'vitest';
import { containerEnvironment, encodeSpec, generateSpec, mappedDevices, replaceEnvironment } from './index.js';
import type { OciMount, SpecInput, SpecMount } from './index.js';
import { anyHost, plainInput } from './spec-fixtures.js';
import { noLimits } from './spec-input.js';
import { mergeTmpfsOptions } from './spec-mounts.js';

const generate = (change: Partial<SpecInput> = {}, host = anyHost()) => generateSpec(plainInput(change), host);
const mountAt = (mounts: OciMount[], destination: string) => mounts.find((mount) => mount.destination === destination);
const process = (change: Partial<SpecInput['process']>) => ({ process: { ...plainInput().process, ...change } });
const bind = (destination: string, change: Partial<Extract<SpecMount, { type: 'bind' }>> = {}): SpecMount => ({
  type: 'bind',
  source: '/src',
  destination,
  readOnly: false,
  recursive: true,
  propagation: 'rprivate',
  ...change,
});
function refusal(action: () => unknown): string {
  try {
    action();
  } catch (error) {
    if (isEngineError(error, 'invalidArgument')) return error.message;
    throw error;
  }
  return 'none';
}

describe('a container that asks for nothing', () => {
  const spec = generate();
  it('has Docker’s mounts', () => {
    expect(spec.mounts.map(({ destination }) => destination)).toEqual([
      '/proc',
      '/dev',
      '/dev/pts',
      '/sys',
      '/sys/fs/cgroup',
      '/dev/mqueue',
      '/dev/shm',
    ]);
    expect(mountAt(spec.mounts, '/dev/shm')?.options).toContain('size=67108864');
    expect(mountAt(spec.mounts, '/sys')?.options).toContain('ro');
    expect(spec.linux.rootfsPropagation).toBeUndefined();
  });
  it('has Docker’s 14 capabilities, none inheritable', () => {
    expect(spec.process.capabilities.bounding).toHaveLength(14);
    expect(spec.process.capabilities.effective).toEqual(spec.process.capabilities.bounding);
    expect(spec.process.capabilities.inheritable).toBeUndefined();
    expect(generate(process({ uid: 1000 })).process.capabilities).toEqual({
      bounding: spec.process.capabilities.bounding,
    });
  });
  it('has namespaces of its own, masked paths and no limits', () => {
    expect(spec.linux.namespaces.map(({ type }) => type)).toEqual(['mount', 'network', 'uts', 'pid', 'ipc']);
    expect(spec.linux.maskedPaths).toContain('/proc/kcore');
    expect(spec.linux.maskedPaths).toContain('/sys/devices/system/cpu/cpu1/thermal_throttle');
    expect(spec.linux.readonlyPaths).toEqual([
      '/proc/bus',
      '/proc/fs',
      '/proc/irq',
      '/proc/sys',
      '/proc/sysrq-trigger',
    ]);
    expect(Object.keys(spec.linux.resources)).toEqual(['devices']);
    expect(spec.linux.resources.devices[0]).toEqual({ allow: false, access: 'rwm' });
    expect(spec.linux.sysctl).toEqual({
      'net.ipv4.ping_group_range': '0 2147483647',
      'net.ipv4.ip_unprivileged_port_start': '0',
    });
    expect(spec.process.cwd).toBe('/');
    expect(spec.process.rlimits).toBeUndefined();
  });
});

describe('capabilities', () => {
  const of = (change: Partial<SpecInput>, host = anyHost()) => generate(change, host).process.capabilities.bounding;
  it('are added, dropped and checked', () => {
    expect(of({ capAdd: ['net_admin', 'CAP_SYS_TIME'], capDrop: ['mknod'] })).toEqual(
      expect.arrayContaining(['CAP_NET_ADMIN', 'CAP_SYS_TIME']),
    );
    expect(of({ capDrop: ['MKNOD'] })).not.toContain('CAP_MKNOD');
    expect(of({ capDrop: ['ALL'], capAdd: ['chown'] })).toEqual(['CAP_CHOWN']);
    expect(of({ capAdd: ['ALL'], capDrop: ['SYS_ADMIN'] })).toHaveLength(40);
    expect(refusal(() => of({ capAdd: ['fly'] }))).toBe('unknown capability: "CAP_FLY"');
  });
  it('give with privileged and ALL only what the engine has', () => {
    const host = anyHost({ capabilities: ['CAP_CHOWN', 'CAP_KILL'] });
    expect(of({ privileged: true }, host)).toEqual(['CAP_CHOWN', 'CAP_KILL']);
    expect(of({ capAdd: ['all'] }, host)).toEqual(['CAP_CHOWN', 'CAP_KILL']);
  });
});

describe('mounts', () => {
  it('replace defaults, outer ones first', () => {
    const { mounts } = generate({ mounts: [bind('/a/b/c'), bind('/a'), bind('/dev'), bind('/sys/fs/cgroup')] });
    expect(mounts.map(({ destination }) => destination)).toEqual([
      '/proc',
      '/sys',
      '/a',
      '/dev',
      '/a/b/c',
      '/sys/fs/cgroup',
    ]);
  });
  it('are read-only all the way down where the kernel can', () => {
    const options = (change: Parameters<typeof bind>[1], host = anyHost()) =>
      mountAt(generate({ mounts: [bind('/m', { readOnly: true, ...change })] }, host).mounts, '/m')?.options;
    expect(options({})).toEqual(['rbind', 'rro', 'rprivate']);
    expect(options({}, anyHost({ kernel: { major: 5, minor: 10 } }))).toEqual(['rbind', 'ro', 'rprivate']);
    expect(options({ readOnlyDepth: 'top' })).toEqual(['rbind', 'ro', 'rprivate']);
    expect(options({ recursive: false, propagation: '' })).toEqual(['bind', 'ro']);
  });
  it('make the root propagate as they need', () => {
    expect(generate({ mounts: [bind('/m', { propagation: 'rshared' })] }).linux.rootfsPropagation).toBe('shared');
    expect(generate({ mounts: [bind('/m', { propagation: 'slave' })] }).linux.rootfsPropagation).toBe('rslave');
    const both = [bind('/m', { propagation: 'shared' }), bind('/n', { propagation: 'rslave' })];
    expect(generate({ mounts: both }).linux.rootfsPropagation).toBe('shared');
    const host = anyHost({ propagationAt: () => 'private' });
    expect(refusal(() => generate({ mounts: [bind('/m', { propagation: 'shared' })] }, host))).toMatch(
      /not a shared mount/,
    );
  });
  it('merge tmpfs options, the last of each kind winning', () => {
    const { mounts } = generate({
      mounts: [{ type: 'tmpfs', destination: '/t', options: ['exec', 'size=1m', 'size=2m'] }],
    });
    expect(mountAt(mounts, '/t')).toEqual({
      destination: '/t',
      type: 'tmpfs',
      source: 'tmpfs',
      options: ['nosuid', 'nodev', 'rprivate', 'exec', 'size=2m'],
    });
    expect(refusal(() => mergeTmpfsOptions(['size']))).toBe('invalid tmpfs option ["size"]');
    expect(refusal(() => mergeTmpfsOptions(['colour=red']))).toBe('invalid tmpfs option ["colour" "red"]');
  });
  it('follow a read-only root, a privileged container and the ipc mode', () => {
    expect(mountAt(generate({ readonlyRootfs: true }).mounts, '/dev/shm')?.options).not.toContain('ro');
    const privileged = generate({ privileged: true });
    expect(mountAt(privileged.mounts, '/sys')?.options).toContain('rw');
    expect(mountAt(privileged.mounts, '/sys/fs/cgroup')?.options).not.toContain('ro');
    expect(privileged.linux.maskedPaths).toEqual([]);
    expect(privileged.linux.resources.devices).toEqual([{ allow: true, access: 'rwm' }]);
    expect(mountAt(generate({ shm: { kind: 'none' } }).mounts, '/dev/shm')).toBeUndefined();
    expect(mountAt(generate({ shm: { kind: 'bind', source: '/x' } }).mounts, '/dev/shm')).toMatchObject({
      type: 'bind',
      source: '/x',
    });
  });
  it('put an init in front of the command', () => {
    const spec = generate({ initPath: '/usr/bin/tini-static' });
    expect(spec.process.args).toEqual(['/sbin/docker-init', '--', 'sh']);
    expect(mountAt(spec.mounts, '/sbin/docker-init')?.source).toBe('/usr/bin/tini-static');
    expect(generate({ initPath: '/x', pid: { kind: 'host' } }).process.args).toEqual(['sh']);
  });
});

describe('namespaces and sysctls', () => {
  it('are shared as asked', () => {
    const spec = generate({
      network: { kind: 'path', path: '/run/netns/x' },
      ownsNetwork: false,
      pid: { kind: 'host' },
      uts: { kind: 'host' },
      cgroup: { kind: 'private' },
      domainname: 'nis',
      sysctls: { 'net.core.somaxconn': '5' },
    });
    expect(spec.linux.namespaces).toEqual([
      { type: 'mount' },
      { type: 'network', path: '/run/netns/x' },
      { type: 'ipc' },
      { type: 'cgroup' },
    ]);
    expect(spec.hostname).toBeUndefined();
    expect(spec.linux.sysctl).toEqual({ 'net.core.somaxconn': '5' });
    expect(generate({ domainname: 'nis' }).linux.sysctl['kernel.domainname']).toBe('nis');
  });
});

describe('limits', () => {
  it('are converted as Docker converts them', () => {
    const { resources } = generate({
      resources: {
        ...noLimits,
        memoryBytes: 100n,
        nanoCpus: 1_500_000_000n,
        pidsLimit: 0n,
        cpuShares: 512n,
        cpusetCpus: '0-1',
        blkioWeight: 300,
      },
    }).linux;
    expect(resources).toMatchObject({
      memory: { limit: 100n, swap: 200n },
      cpu: { shares: 512n, period: 100000n, quota: 150000n, cpus: '0-1' },
      pids: { limit: -1n },
      blockIO: { weight: 300 },
    });
  });
  it('are left out where the machine has none', () => {
    const { cgroup } = anyHost();
    const host = anyHost({ cgroup: { ...cgroup, swap: false, blkioWeight: false, oomKillDisable: false } });
    const limits = { ...noLimits, memoryBytes: 100n, memorySwapBytes: -1n, blkioWeight: 10, oomKillDisable: true };
    const { resources } = generate({ resources: limits }, host).linux;
    expect(resources.memory).toEqual({ limit: 100n });
    expect(resources.blockIO).toBeUndefined();
  });
  it('of the process keep all digits', () => {
    const rlimits = [
      { name: 'nofile', soft: 1024n, hard: 2048n },
      { name: 'core', soft: -1n, hard: -1n },
    ];
    const spec = generate(process({ rlimits }));
    expect(encodeSpec(spec)).toContain(
      '"rlimits":[{"type":"RLIMIT_NOFILE","soft":1024,"hard":2048},{"type":"RLIMIT_CORE","soft":18446744073709551615,"hard":18446744073709551615}]',
    );
    expect(refusal(() => generate(process({ rlimits: [{ name: 'magic', soft: 1n, hard: 1n }] })))).toBe(
      'invalid ulimit type: magic',
    );
    expect(refusal(() => generate(process({ rlimits: [{ name: 'cpu', soft: 2n, hard: 1n }] })))).toMatch(
      /soft limit must be less/,
    );
  });
});

describe('devices', () => {
  it('come with their rules', () => {
    const { devices, rules } = mappedDevices({
      pathOnHost: '/dev/zero',
      pathInContainer: '/dev/nothing',
      permissions: 'r',
    });
    expect(devices).toMatchObject([{ path: '/dev/nothing', type: 'c', major: 1, minor: 5 }]);
    expect(rules).toEqual([{ allow: true, type: 'c', major: 1, minor: 5, access: 'r' }]);
    expect(generate({ deviceCgroupRules: ['c 42:* rwm'] }).linux.resources.devices.at(-1)).toEqual({
      allow: true,
      type: 'c',
      major: 42,
      access: 'rwm',
    });
    expect(refusal(() => generate({ deviceCgroupRules: ['x 1:2 r'] }))).toBe(
      "invalid device cgroup rule format: 'x 1:2 r'",
    );
    expect(refusal(() => mappedDevices({ pathOnHost: '/dev/nope', pathInContainer: '', permissions: '' }))).toBe(
      'error gathering device information while adding custom device "/dev/nope": no such file or directory',
    );
    expect(refusal(() => mappedDevices({ pathOnHost: '/etc/passwd', pathInContainer: '', permissions: '' }))).toMatch(
      /not a device node/,
    );
  });
});

describe('the environment', () => {
  it('is Docker’s, changed by the configuration', () => {
    const config = { env: ['PATH=/mine', 'A=1', 'A=2', 'HOSTNAME'], hostname: 'h', terminal: true };
    expect(containerEnvironment(config)).toEqual(['PATH=/mine', 'TERM=xterm', 'A=2']);
    expect(replaceEnvironment(['A=1', 'B=2'], ['B', 'C=3=4'])).toEqual(['A=1', 'C=3=4']);
  });
});

describe('encodeSpec', () => {
  it('writes JSON that reads back the same', () => {
    const value = { a: [1, 'x"\n', null, { b: true, none: undefined }], '"key"': 0.5 };
    expect(JSON.parse(encodeSpec(value))).toEqual(JSON.parse(JSON.stringify(value)));
  });
});

describe('a container in a user namespace of its own', () => {
  const mappings = {
    uids: [{ containerId: 0, hostId: 1000, size: 10 }],
    gids: [
      { containerId: 0, hostId: 2000, size: 10 },
      { containerId: 10, hostId: 500, size: 5 },
    ],
  };
  const userNamespace = { path: '/proc/7/ns/user', mappings };
  const spec = generate({ userNamespace, domainname: 'example' });

  it('joins the one that was made, by its ids', () => {
    expect(spec.linux.namespaces).toContainEqual({ type: 'user', path: '/proc/7/ns/user' });
    expect(spec.linux.uidMappings).toEqual([{ containerID: 0, hostID: 1000, size: 10 }]);
    expect(spec.linux.gidMappings).toEqual([
      { containerID: 0, hostID: 2000, size: 10 },
      { containerID: 10, hostID: 500, size: 5 },
    ]);
    expect(generate().linux).not.toHaveProperty('uidMappings');
  });

  it('sets only what its root may: ping for the groups that it has, no domain name, no read-only cgroups', () => {
    expect(spec.linux.sysctl).toMatchObject({ 'net.ipv4.ping_group_range': '0 14' });
    expect(spec.linux.sysctl).not.toHaveProperty('kernel.domainname');
    expect(generate({ domainname: 'example' }).linux.sysctl).toHaveProperty('kernel.domainname');
    expect(mountAt(spec.mounts, '/sys/fs/cgroup')?.options).not.toContain('ro');
    expect(mountAt(spec.mounts, '/sys')?.options).toContain('ro');
  });

  it('sees the message queues of the host, where it shares them and the host has any', () => {
    const shared = { userNamespace, ipc: { kind: 'host' } as const };
    expect(mountAt(generate(shared).mounts, '/dev/mqueue')).toMatchObject({ type: 'bind', source: '/dev/mqueue' });
    expect(mountAt(generate(shared, anyHost({ hasQueues: false })).mounts, '/dev/mqueue')).toBeUndefined();
    expect(mountAt(spec.mounts, '/dev/mqueue')).toMatchObject({ type: 'mqueue' });
  });
});

describe('cgroup v2', () => {
  const host = anyHost({ cgroupVersion: 2 });

  it('is shown whole with the host’s cgroup namespace, and as the root of a private one', () => {
    expect(generate({ cgroup: { kind: 'private' } }, host).linux.namespaces).toContainEqual({ type: 'cgroup' });
    expect(generate({ cgroup: { kind: 'host' } }, host).linux.namespaces).not.toContainEqual({ type: 'cgroup' });
    for (const kind of ['private', 'host'] as const) {
      expect(mountAt(generate({ cgroup: { kind } }, host).mounts, '/sys/fs/cgroup')).toMatchObject({ type: 'cgroup' });
    }
  });
});
