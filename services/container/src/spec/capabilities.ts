import { invalidArgument } from '@flotilla/errors';

/** All capabilities, at the index of their bit: linux/capability.h. */
export const capabilityNames: readonly string[] = [
  'CHOWN',
  'DAC_OVERRIDE',
  'DAC_READ_SEARCH',
  'FOWNER',
  'FSETID',
  'KILL',
  'SETGID',
  'SETUID',
  'SETPCAP',
  'LINUX_IMMUTABLE',
  'NET_BIND_SERVICE',
  'NET_BROADCAST',
  'NET_ADMIN',
  'NET_RAW',
  'IPC_LOCK',
  'IPC_OWNER',
  'SYS_MODULE',
  'SYS_RAWIO',
  'SYS_CHROOT',
  'SYS_PTRACE',
  'SYS_PACCT',
  'SYS_ADMIN',
  'SYS_BOOT',
  'SYS_NICE',
  'SYS_RESOURCE',
  'SYS_TIME',
  'SYS_TTY_CONFIG',
  'MKNOD',
  'LEASE',
  'AUDIT_WRITE',
  'AUDIT_CONTROL',
  'SETFCAP',
  'MAC_OVERRIDE',
  'MAC_ADMIN',
  'SYSLOG',
  'WAKE_ALARM',
  'BLOCK_SUSPEND',
  'AUDIT_READ',
  'PERFMON',
  'BPF',
  'CHECKPOINT_RESTORE',
].map((name) => `CAP_${name}`);

/** What a container has that asks for nothing: docs.docker.com, "Runtime privilege and Linux capabilities". */
export const defaultCapabilities: readonly string[] = [
  'CAP_CHOWN',
  'CAP_DAC_OVERRIDE',
  'CAP_FSETID',
  'CAP_FOWNER',
  'CAP_MKNOD',
  'CAP_NET_RAW',
  'CAP_SETGID',
  'CAP_SETUID',
  'CAP_SETFCAP',
  'CAP_SETPCAP',
  'CAP_NET_BIND_SERVICE',
  'CAP_SYS_CHROOT',
  'CAP_KILL',
  'CAP_AUDIT_WRITE',
];

const all = 'ALL';

/**
 * Upper-cases names and puts `CAP_` in front where it is missing; `ALL` stays.
 *
 * @throws EngineError `invalidArgument` for names that do not exist
 */
export function normalizeCapabilities(names: readonly string[]): string[] {
  return names.map((name) => {
    const upper = name.toUpperCase();
    if (upper === all) return all;
    const full = upper.startsWith('CAP_') ? upper : `CAP_${upper}`;
    if (!capabilityNames.includes(full)) throw invalidArgument(`unknown capability: "${full}"`);
    return full;
  });
}

/**
 * The capabilities of a container. `ALL` and privileged mean those of `available`: what the engine does not have, it
 * cannot give.
 */
export function containerCapabilities(
  request: { capAdd: readonly string[]; capDrop: readonly string[]; privileged: boolean },
  available: readonly string[],
): string[] {
  if (request.privileged) return [...available];
  const add = normalizeCapabilities(request.capAdd);
  const drop = normalizeCapabilities(request.capDrop);
  if (add.includes(all)) return available.filter((name) => !drop.includes(name));
  if (drop.includes(all)) return [...new Set(add)];
  return [...new Set([...defaultCapabilities.filter((name) => !drop.includes(name)), ...add])];
}
