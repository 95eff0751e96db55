import { loadBuiltinProfile } from './builtin-seccomp.js';
import { containerCapabilities } from './capabilities.js';
import type { HostFacts } from './host-facts.js';
import type { IdRange } from '@flotilla/sys';
import type { NamespaceType, OciIdMapping, OciLinux, OciSeccomp, OciSpec } from './oci-spec.js';
import { parseSeccompProfile, resolveSeccompProfile } from './seccomp-profile.js';
import type { NamespaceChoice, SpecInput } from './spec-input.js';
import { initDestination, specMounts } from './spec-mounts.js';
import { deviceRules, specResources, specRlimits } from './spec-resources.js';

/** What of the host's kernel a container must not see; the paths that do not exist are skipped by the runtime. */
export function defaultMaskedPaths(cpus: number): string[] {
  return [
    '/proc/acpi',
    '/proc/asound',
    '/proc/interrupts',
    '/proc/kcore',
    '/proc/keys',
    '/proc/latency_stats',
    '/proc/sched_debug',
    '/proc/scsi',
    '/proc/timer_list',
    '/proc/timer_stats',
    '/sys/devices/virtual/powercap',
    '/sys/firmware',
    ...Array.from({ length: cpus }, (_, cpu) => `/sys/devices/system/cpu/cpu${cpu}/thermal_throttle`),
  ];
}

export const defaultReadonlyPaths: readonly string[] = [
  '/proc/bus',
  '/proc/fs',
  '/proc/irq',
  '/proc/sys',
  '/proc/sysrq-trigger',
];

/**
 * A container's config.json, with Docker's defaults. A function of its input (and of the distribution's seccomp list,
 * read once): nothing is made and nothing is looked up.
 *
 * @throws EngineError `invalidArgument` for what the input asks for and cannot be; `internal` without the seccomp list
 */
export function generateSpec(input: SpecInput, host: HostFacts): OciSpec {
  const { process } = input;
  const capabilities = containerCapabilities(input, host.capabilities);
  const { mounts, rootfsPropagation } = specMounts(input, host);
  const seccomp = specSeccomp(input, host, capabilities);
  const rlimits = specRlimits(process.rlimits);
  const hasInit = input.initPath !== undefined && input.pid.kind === 'private';
  return {
    ociVersion: '1.0.2',
    process: {
      terminal: process.terminal,
      ...(process.consoleSize === undefined ? {} : { consoleSize: process.consoleSize }),
      user: { uid: process.uid, gid: process.gid, additionalGids: process.additionalGids },
      args: hasInit ? [initDestination, '--', ...process.args] : process.args,
      env: process.env,
      cwd: process.cwd === '' ? '/' : process.cwd,
      capabilities: processCapabilities(capabilities, process.uid),
      ...(rlimits.length === 0 ? {} : { rlimits }),
      noNewPrivileges: process.noNewPrivileges,
      ...(process.apparmorProfile === undefined ? {} : { apparmorProfile: process.apparmorProfile }),
      oomScoreAdj: process.oomScoreAdj,
    },
    root: { path: input.rootPath, readonly: input.readonlyRootfs },
    ...(input.uts.kind === 'private' ? { hostname: input.hostname } : {}),
    mounts,
    ...(Object.keys(input.annotations).length === 0 ? {} : { annotations: input.annotations }),
    linux: {
      namespaces: namespaces(input),
      ...idMappings(input),
      devices: input.devices,
      cgroupsPath: input.cgroupsPath,
      resources: { ...specResources(input.resources, host.cgroup), devices: deviceRules(input) },
      sysctl: sysctls(input, host),
      ...(seccomp === undefined ? {} : { seccomp }),
      ...(rootfsPropagation === undefined ? {} : { rootfsPropagation }),
      maskedPaths: input.maskedPaths ?? (input.privileged ? [] : defaultMaskedPaths(host.cpus)),
      readonlyPaths: input.readonlyPaths ?? (input.privileged ? [] : [...defaultReadonlyPaths]),
    },
  };
}

/**
 * The capability sets of a process of this user: what execve(2) would leave. Nothing is inheritable, so that programs
 * with file capabilities gain nothing (CVE-2022-24769).
 */
export function processCapabilities(capabilities: string[], uid: number): OciSpec['process']['capabilities'] {
  if (uid !== 0) return { bounding: capabilities };
  return { bounding: capabilities, effective: capabilities, permitted: capabilities };
}

function namespaces(input: SpecInput): OciLinux['namespaces'] {
  const chosen: [NamespaceType, NamespaceChoice][] = [
    ['mount', { kind: 'private' }],
    ['network', input.network],
    ['uts', input.uts],
    ['pid', input.pid],
    ['ipc', input.ipc],
    ['cgroup', input.cgroup],
    ['user', input.userNamespace === undefined ? { kind: 'host' } : { kind: 'path', path: input.userNamespace.path }],
  ];
  return chosen.flatMap(([type, choice]) => {
    if (choice.kind === 'host') return [];
    return [choice.kind === 'path' ? { type, path: choice.path } : { type }];
  });
}

function idMappings({ userNamespace }: SpecInput): Pick<OciLinux, 'uidMappings' | 'gidMappings'> {
  if (userNamespace === undefined) return {};
  const { uids, gids } = userNamespace.mappings;
  return { uidMappings: uids.map(ociMapping), gidMappings: gids.map(ociMapping) };
}

const ociMapping = ({ containerId, hostId, size }: IdRange): OciIdMapping => ({
  containerID: containerId,
  hostID: hostId,
  size,
});

/** Docker's: ping without privileges, and low ports for everybody, in network namespaces of the container's own. */
function networkSysctls({ userNamespace }: SpecInput): [string, string][] {
  // The kernel takes no group that the namespace does not have. dockerd leaves it out then.
  const lastGroup =
    userNamespace === undefined ? 2 ** 31 - 1 : userNamespace.mappings.gids.reduce((sum, { size }) => sum + size, -1);
  return [
    ['net.ipv4.ping_group_range', `0 ${lastGroup}`],
    ['net.ipv4.ip_unprivileged_port_start', '0'],
  ];
}

function sysctls(input: SpecInput, host: HostFacts): Record<string, string> {
  const values: Record<string, string> = {};
  if (input.ownsNetwork) {
    for (const [name, value] of networkSysctls(input)) if (host.hasSysctl(name)) values[name] = value;
  }
  // In a user namespace it is not the runtime's to set.
  const setsDomain = input.uts.kind === 'private' && input.userNamespace === undefined;
  if (input.domainname !== '' && setsDomain) values['kernel.domainname'] = input.domainname;
  return { ...values, ...input.sysctls };
}

function specSeccomp(input: SpecInput, host: HostFacts, capabilities: string[]): OciSeccomp | undefined {
  if (input.privileged || input.seccompProfile === 'unconfined') return undefined;
  const profile = input.seccompProfile === 'builtin' ? loadBuiltinProfile() : parseSeccompProfile(input.seccompProfile);
  return resolveSeccompProfile(profile, { capabilities, arch: host.arch, kernel: host.kernel });
}
