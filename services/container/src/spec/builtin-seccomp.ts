import { readFileSync } from 'node:fs';
import { constants } from 'node:os';
import { internal } from '@flotilla/errors';
import { bindSyscall, hasCode, lastErrno } from '@flotilla/sys';
import type { OciSyscallArgument } from './oci-spec.js';
import { parseSeccompProfile } from './seccomp-profile.js';
import type { ProfileRule, RuleFilter, SeccompProfile } from './seccomp-profile.js';

/** The allow-list that Debian maintains for container engines. */
export const distributionProfile = '/usr/share/containers/seccomp.json';

const { EPERM, ENOSYS } = constants.errno;

/**
 * Calls that Docker allows only with a capability, where the distribution's list allows them to all.
 * Source: docs.docker.com, "Significant syscalls blocked by the default profile".
 */
const gatedCalls: Record<string, string[]> = {
  CAP_SYS_ADMIN: [
    'bpf',
    'clone',
    'clone3',
    'fanotify_init',
    'fsconfig',
    'fsmount',
    'fsopen',
    'fspick',
    'lookup_dcookie',
    'mount',
    'mount_setattr',
    'move_mount',
    'open_tree',
    'perf_event_open',
    'quotactl',
    'quotactl_fd',
    'setdomainname',
    'sethostname',
    'setns',
    'syslog',
    'umount',
    'umount2',
    'unshare',
  ],
  CAP_BPF: ['bpf'],
  CAP_PERFMON: ['perf_event_open'],
  CAP_SYSLOG: ['syslog'],
  CAP_SYS_BOOT: ['reboot'],
  CAP_SYS_NICE: ['get_mempolicy', 'mbind', 'set_mempolicy', 'set_mempolicy_home_node'],
  CAP_SYS_PTRACE: ['kcmp', 'pidfd_getfd', 'process_madvise'],
};

/** Calls that Docker never allows: keys and the root are not kept apart by namespaces, or the call is long obsolete. */
const blockedCalls = ['add_key', 'keyctl', 'pivot_root', 'request_key', 'syscall', 'uselib', 'userfaultfd', 'ustat'];

/**
 * Calls that Docker allows and an older list does not know: C libraries try them and mistake "not permitted" for a
 * final answer.
 */
const newerCalls = [
  'cachestat',
  'fchmodat2',
  'futex_requeue',
  'futex_wait',
  'futex_waitv',
  'futex_wake',
  'getxattrat',
  'io_pgetevents',
  'io_pgetevents_time64',
  'listmount',
  'listxattrat',
  'map_shadow_stack',
  'mseal',
  'removexattrat',
  'setxattrat',
  'statmount',
  'uretprobe',
  'vmsplice',
];

/** CLONE_NEWNS, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET and NEWCGROUP. */
const namespaceFlags = 0x7e020000n;
const AF_VSOCK = 40n;
const X32_SYSCALL_BIT = 0x40000000;
const getpidX32 = bindSyscall(X32_SYSCALL_BIT + 39, []);
const none: RuleFilter = { caps: [], arches: [] };
const s390 = ['s390', 's390x'];

/**
 * The default profile: the distribution's allow-list with Docker's blocks on top.
 *
 * Everything not allowed fails with EPERM. Calls that need a capability are allowed with it only; `clone` without it
 * may not make namespaces, and `clone3`, whose flags a filter cannot see, is answered with ENOSYS so that C libraries
 * fall back to `clone`.
 */
export function dockerProfile(distribution: SeccompProfile): SeccompProfile {
  const special = new Set([...Object.values(gatedCalls).flat(), ...blockedCalls, 'socket']);
  const rules: ProfileRule[] = [];
  for (const rule of distribution.rules) {
    if (rule.action !== 'SCMP_ACT_ALLOW') continue;
    const names = rule.names.filter((name) => !special.has(name));
    if (names.length > 0) rules.push({ ...rule, names });
  }
  rules.push(allow(newerCalls), allow(['socket'], none, none, [argument(0, 'SCMP_CMP_NE', AF_VSOCK)]));
  for (const [capability, names] of Object.entries(gatedCalls)) {
    rules.push(allow(names, { caps: [capability], arches: [] }));
  }
  const admin = ['CAP_SYS_ADMIN'];
  const isPlain = (index: number) => [argument(index, 'SCMP_CMP_MASKED_EQ', namespaceFlags)];
  rules.push(
    allow(['clone'], none, { caps: admin, arches: s390 }, isPlain(0)),
    allow(['clone'], { caps: [], arches: s390 }, { caps: admin, arches: [] }, isPlain(1)),
    {
      ...allow(['clone3'], none, { caps: admin, arches: [] }),
      action: 'SCMP_ACT_ERRNO',
      errnoRet: ENOSYS,
    },
  );
  return { ...distribution, defaultAction: 'SCMP_ACT_ERRNO', defaultErrnoRet: EPERM, rules };
}

function allow(
  names: string[],
  includes: RuleFilter = none,
  excludes: RuleFilter = none,
  args: OciSyscallArgument[] = [],
): ProfileRule {
  return { names, action: 'SCMP_ACT_ALLOW', args, includes, excludes };
}

/** For MASKED_EQ the value is the mask, and the masked argument must be 0. */
function argument(index: number, op: string, value: bigint): OciSyscallArgument {
  return { index, value, valueTwo: 0n, op };
}

let loaded: SeccompProfile | undefined;

/** The default profile, read at first use. @throws EngineError `internal` naming the package that is missing */
export function loadBuiltinProfile(): SeccompProfile {
  loaded ??= readBuiltinProfile();
  return loaded;
}

function readBuiltinProfile(): SeccompProfile {
  const profile = dockerProfile(parseSeccompProfile(readDistributionProfile()));
  return kernelRunsX32() ? profile : withoutX32(profile);
}

/**
 * The profile for a kernel that runs no x32 programs. Each further architecture costs the runtime 6 ms of CPU for each start and each exec: a seventh of all.
 * A call with an x32 number, which the kernel would not know anyway, then ends its process, as calls of every architecture do that a filter leaves out.
 */
export function withoutX32(profile: SeccompProfile): SeccompProfile {
  const archMap = profile.archMap.map((entry) => ({
    ...entry,
    subArchitectures: entry.subArchitectures.filter((name) => name !== 'SCMP_ARCH_X32'),
  }));
  return { ...profile, archMap };
}

/** Asked by calling getpid with the number it has there; not under a filter, which might end this process for it. */
function kernelRunsX32(): boolean {
  if (process.arch !== 'x64') return false;
  if (!/^Seccomp:\t0$/m.test(readFileSync('/proc/self/status', 'latin1'))) return true;
  return getpidX32() >= 0 || lastErrno() !== ENOSYS;
}

function readDistributionProfile(): string {
  try {
    return readFileSync(distributionProfile, 'utf8');
  } catch (cause) {
    if (!hasCode(cause, 'ENOENT')) throw cause;
    throw internal(
      `the default seccomp profile needs ${distributionProfile}: install the package golang-github-containers-common`,
      { cause },
    );
  }
}
