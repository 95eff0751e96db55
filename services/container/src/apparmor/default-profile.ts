/** Name of the profile that containers have when they ask for none, as dockerd's. */
export const defaultProfileName = 'docker-default';

/** Asks for no profile at all. */
export const unconfined = 'unconfined';

export interface ProfileFacts {
  /** Profile of the engine itself: what it runs may send signals into containers. */
  engineProfile: string;
  /** The distribution's `tunables/global` and `abstractions/base` are there. */
  hasTunables: boolean;
  hasBase: boolean;
}

/**
 * The text of the default profile: a container may do with files, sockets and capabilities what its namespaces and capabilities let it, but neither
 * mount, nor write to what /proc and /sys show of the machine, nor trace or signal what is outside of it. What it lets through is what dockerd's does.
 */
export function defaultProfile({ engineProfile, hasTunables, hasBase }: ProfileFacts): string {
  const senders = new Set([unconfined, engineProfile, 'runc', 'crun']);
  return [
    hasTunables ? '#include <tunables/global>' : '@{PROC}=/proc/',
    '',
    `profile ${defaultProfileName} flags=(attach_disconnected,mediate_deleted) {`,
    ...(hasBase ? ['  #include <abstractions/base>'] : []),
    '  network,',
    '  capability,',
    '  file,',
    '  umount,',
    '  deny mount,',
    '',
    '  # Signals come from the engine and the runtime, and from among the container.',
    ...[...senders].map((sender) => `  signal (receive) peer=${sender},`),
    `  signal (send,receive) peer=${defaultProfileName},`,
    `  ptrace (trace,read,tracedby,readby) peer=${defaultProfileName},`,
    '',
    '  # Of /proc, processes and the shared memory limits can be written to.',
    '  deny @{PROC}/* w,',
    '  deny @{PROC}/[a-rt-z]*/** w,',
    '  deny @{PROC}/s[^y]*/** w,',
    '  deny @{PROC}/sysvipc/** w,',
    '  deny @{PROC}/sys/[^k]** w,',
    '  deny @{PROC}/sys/kernel/[^s]** w,',
    '  deny @{PROC}/sys/kernel/s[^h]** w,',
    '  deny @{PROC}/sys/kernel/sh[^m]** w,',
    '  deny @{PROC}/sysrq-trigger rwklx,',
    '  deny @{PROC}/kcore rwklx,',
    '',
    '  # Of /sys, cgroups.',
    '  deny /sys/[^f]*/** wklx,',
    '  deny /sys/f[^s]*/** wklx,',
    '  deny /sys/fs/[^c]*/** wklx,',
    '  deny /sys/fs/c[^g]*/** wklx,',
    '  deny /sys/fs/cg[^r]*/** wklx,',
    '  deny /sys/firmware/** rwklx,',
    '  deny /sys/kernel/security/** rwklx,',
    '}',
    '',
  ].join('\n');
}
