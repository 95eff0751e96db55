import { existsSync, readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { distributionProfile, dockerProfile, loadBuiltinProfile, withoutX32 } from './builtin-seccomp.js';
import { defaultCapabilities } from './capabilities.js';
import type { OciSeccomp } from './oci-spec.js';
import { parseSeccompProfile, resolveSeccompProfile } from './seccomp-profile.js';
import type { SeccompTarget } from './seccomp-profile.js';

const target = (change: Partial<SeccompTarget> = {}): SeccompTarget => ({
  capabilities: defaultCapabilities,
  arch: 'amd64',
  kernel: { major: 6, minor: 1 },
  ...change,
});
const rulesFor = (seccomp: OciSeccomp, name: string) => seccomp.syscalls.filter(({ names }) => names.includes(name));
const isAllowed = (seccomp: OciSeccomp, name: string) =>
  rulesFor(seccomp, name).some(({ action, args }) => action === 'SCMP_ACT_ALLOW' && args === undefined);

describe.runIf(existsSync(distributionProfile))('the default seccomp profile', () => {
  const plain = resolveSeccompProfile(loadBuiltinProfile(), target());
  it('answers EPERM to what it does not list', () => {
    expect(plain).toMatchObject({ defaultAction: 'SCMP_ACT_ERRNO', defaultErrnoRet: 1 });
    expect(plain.architectures?.slice(0, 2)).toEqual(['SCMP_ARCH_X86_64', 'SCMP_ARCH_X86']);
    for (const name of [
      'mount',
      'umount2',
      'unshare',
      'setns',
      'keyctl',
      'add_key',
      'request_key',
      'fsopen',
      'open_tree',
      'pivot_root',
      'bpf',
      'reboot',
      'mbind',
      'syslog',
      'init_module',
      'pidfd_getfd',
      'userfaultfd',
      'open_by_handle_at',
      'io_uring_setup',
      'kexec_load',
      'swapon',
      'settimeofday',
    ]) {
      expect([name, rulesFor(plain, name)]).toEqual([name, []]);
    }
  });
  it('has x32 only for kernels that run it', () => {
    const whole = dockerProfile(parseSeccompProfile(readFileSync(distributionProfile, 'utf8')));
    const architectures = ['SCMP_ARCH_X86_64', 'SCMP_ARCH_X86', 'SCMP_ARCH_X32'];
    expect(resolveSeccompProfile(whole, target()).architectures).toEqual(architectures);
    expect(resolveSeccompProfile(withoutX32(whole), target()).architectures).toEqual(architectures.slice(0, 2));
    expect(resolveSeccompProfile(withoutX32(whole), target({ arch: 'arm64' }))).toEqual(
      resolveSeccompProfile(whole, target({ arch: 'arm64' })),
    );
  });
  it('allows what programs need, also new calls', () => {
    for (const name of [
      'read',
      'execve',
      'chroot',
      'ptrace',
      'futex_waitv',
      'fchmodat2',
      'cachestat',
      'arch_prctl',
      'landlock_create_ruleset',
      'mknod',
      'setuid',
      'chown',
      'faccessat2',
      'openat2',
      'rseq',
      'statx',
    ]) {
      expect([name, isAllowed(plain, name)]).toEqual([name, true]);
    }
  });
  it('allows clone without namespaces, and makes clone3 fall back to it', () => {
    expect(rulesFor(plain, 'clone')).toEqual([
      {
        names: ['clone'],
        action: 'SCMP_ACT_ALLOW',
        args: [{ index: 0, value: 2114060288n, valueTwo: 0n, op: 'SCMP_CMP_MASKED_EQ' }],
      },
    ]);
    expect(rulesFor(plain, 'clone3')).toEqual([{ names: ['clone3'], action: 'SCMP_ACT_ERRNO', errnoRet: 38 }]);
    const s390 = resolveSeccompProfile(loadBuiltinProfile(), target({ arch: 's390x' }));
    expect(rulesFor(s390, 'clone')[0]?.args?.[0]?.index).toBe(1);
  });
  it('opens with capabilities', () => {
    const admin = resolveSeccompProfile(loadBuiltinProfile(), target({ capabilities: ['CAP_SYS_ADMIN'] }));
    for (const name of ['mount', 'unshare', 'clone', 'clone3', 'setns', 'fsopen', 'syslog']) {
      expect([name, isAllowed(admin, name)]).toEqual([name, true]);
    }
    expect(rulesFor(admin, 'keyctl')).toEqual([]);
    expect(rulesFor(admin, 'chroot')).toEqual([]);
    const nice = resolveSeccompProfile(
      loadBuiltinProfile(),
      target({ capabilities: ['CAP_SYS_NICE', 'CAP_SYS_BOOT'] }),
    );
    expect([isAllowed(nice, 'mbind'), isAllowed(nice, 'reboot'), isAllowed(nice, 'mount')]).toEqual([
      true,
      true,
      false,
    ]);
  });
  it('keeps virtual machine sockets out', () => {
    expect(rulesFor(plain, 'socket')).toMatchObject([{ args: [{ index: 0, value: 40n, op: 'SCMP_CMP_NE' }] }]);
  });
});

describe('a profile of the user', () => {
  const parse = (profile: object) => parseSeccompProfile(JSON.stringify(profile));
  it('is filtered by capability, architecture and kernel', () => {
    const profile = parse({
      defaultAction: 'SCMP_ACT_ALLOW',
      architectures: ['SCMP_ARCH_X86_64'],
      syscalls: [
        { name: 'old', action: 'SCMP_ACT_ERRNO' },
        { names: ['a'], action: 'SCMP_ACT_ERRNO', errnoRet: 5, includes: { caps: ['CAP_X'] } },
        { names: ['b'], action: 'SCMP_ACT_ERRNO', excludes: { caps: ['CAP_CHOWN'] } },
        { names: ['c'], action: 'SCMP_ACT_ERRNO', includes: { arches: ['arm64'] } },
        { names: ['d'], action: 'SCMP_ACT_ERRNO', includes: { minKernel: '6.1' } },
        { names: ['e'], action: 'SCMP_ACT_ERRNO', includes: { minKernel: '6.2' } },
        { names: ['f'], action: 'SCMP_ACT_ERRNO', includes: { arches: ['arm64', 'amd64'] } },
      ],
    });
    const resolved = resolveSeccompProfile(profile, target());
    expect(resolved.syscalls.map(({ names }) => names[0])).toEqual(['old', 'd', 'f']);
    expect(resolved.architectures).toEqual(['SCMP_ARCH_X86_64']);
  });
  it('is refused in one sentence when it is wrong', () => {
    expect(() => parseSeccompProfile('{')).toThrow(/^Decoding seccomp profile failed/);
    expect(() => parse([])).toThrow(/^Decoding seccomp profile failed/);
    expect(() => parse({})).toThrow(/invalid value of defaultAction/);
    expect(() => parse({ defaultAction: 'x', syscalls: [{ names: [1], action: 'y' }] })).toThrow(
      /invalid value of names/,
    );
    expect(() => parse({ defaultAction: 'x', architectures: ['a'], archMap: [{ architecture: 'b' }] })).toThrow(
      /use either 'architectures' or 'archMap'/,
    );
    expect(() => parse({ defaultAction: 'x', syscalls: [{ name: 'a', names: ['b'], action: 'y' }] })).toThrow(
      /use either 'name' or 'names'/,
    );
  });
  it('may itself be the base of the default one', () => {
    const base = parse({
      defaultAction: 'SCMP_ACT_ERRNO',
      syscalls: [
        { names: ['read', 'mount'], action: 'SCMP_ACT_ALLOW' },
        { names: ['x'], action: 'SCMP_ACT_ERRNO' },
      ],
    });
    const resolved = resolveSeccompProfile(dockerProfile(base), target());
    expect(isAllowed(resolved, 'read')).toBe(true);
    expect(rulesFor(resolved, 'mount')).toEqual([]);
    expect(rulesFor(resolved, 'x')).toEqual([]);
  });
});
