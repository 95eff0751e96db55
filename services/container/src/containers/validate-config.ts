import { isIP } from 'node:net';
import { posix } from 'node:path';
import { invalidArgument } from '@flotilla/errors';
import type { common, container } from '@flotilla/proto';
import { planPorts, expandExposedPort } from './port-plan.js';
import { parseRestartPolicy } from './restart-policy.js';
import { parseSignal } from './signals.js';

/** Check what needs no image and no peer. @throws EngineError `invalidArgument` in dockerd's words. */
export function validateConfig(config: container.ContainerConfig): void {
  if (config.workingDir !== '' && !posix.isAbsolute(config.workingDir)) {
    throw invalidArgument(`the working directory '${config.workingDir}' is invalid, it needs to be an absolute path`);
  }
  for (const entry of config.env) {
    if (entry.startsWith('=') || entry === '') throw invalidArgument(`invalid environment variable: ${entry}`);
  }
  for (const text of [...config.env, ...config.cmd, ...config.entrypoint, config.user, config.workingDir]) {
    if (text.includes('\0')) throw invalidArgument('a zero byte is not allowed in the configuration');
  }
  if (config.stopSignal !== '') parseSignal(config.stopSignal);
  if (config.hostname !== '' && !isHostname(config.hostname))
    throw invalidArgument(`invalid hostname format: ${config.hostname}`);
  config.exposedPorts.forEach(expandExposedPort);
  if (config.healthcheck !== undefined) validateHealthcheck(config.healthcheck);
  if (config.macAddress !== '' && !isMacAddress(config.macAddress)) {
    throw invalidArgument(`${config.macAddress} is not a valid mac address`);
  }
}

/** Check a host configuration. @throws EngineError `invalidArgument` in dockerd's words. */
export function validateHostConfig(
  config: container.ContainerConfig,
  host: container.HostConfig,
  runtimes: ReadonlySet<string>,
): void {
  const policy = parseRestartPolicy(host.restartPolicy?.name ?? '', host.restartPolicy?.maximumRetryCount ?? 0);
  if (host.autoRemove && policy.name !== 'no') {
    throw invalidArgument("can't create 'AutoRemove' container with restart policy");
  }
  planPorts(host.portBindings);
  host.extraHosts.forEach(validateExtraHost);
  for (const address of host.dns) {
    if (isIP(address) === 0) throw invalidArgument(`bad nameserver address: ${address}`);
  }
  validateCapabilities('CapAdd', host.capAdd);
  validateCapabilities('CapDrop', host.capDrop);
  host.securityOpt.forEach(validateSecurityOption);
  validateNamespaces(host);
  validateNetworkConflicts(config, host);
  if (host.runtime !== '' && !runtimes.has(host.runtime)) {
    throw invalidArgument(`unknown or invalid runtime name: ${host.runtime}`);
  }
  if (host.oomScoreAdj < -1000 || host.oomScoreAdj > 1000) {
    throw invalidArgument(`Invalid value ${host.oomScoreAdj}, range for oom score adj is [-1000, 1000]`);
  }
  if (host.shmSizeBytes < 0n) throw invalidArgument('SHM size can not be less than 0');
  for (const name of Object.keys(host.annotations)) {
    if (name === '')
      throw invalidArgument('invalid Annotations: the empty string is not permitted as an annotation key');
  }
  for (const name of Object.keys(host.sysctls)) {
    if (!/^[a-z0-9_./-]+$/i.test(name)) throw invalidArgument(`invalid sysctl name: ${name}`);
    if (host.networkMode === 'host' && /^net[./]/.test(name)) {
      throw invalidArgument(`sysctl "${name}" not allowed in host network namespace`);
    }
  }
}

function validateHealthcheck(check: common.Healthcheck): void {
  const leastNs = 1_000_000n;
  const durations: [string, bigint][] = [
    ['Interval', check.intervalNs],
    ['Timeout', check.timeoutNs],
    ['StartPeriod', check.startPeriodNs],
    ['StartInterval', check.startIntervalNs],
  ];
  for (const [name, value] of durations) {
    if (value !== 0n && value < leastNs) throw invalidArgument(`${name} in Healthcheck cannot be less than 1ms`);
  }
  if (check.retries < 0n) throw invalidArgument('Retries in Healthcheck cannot be negative');
  const [kind] = check.test;
  if (kind !== undefined && !['', 'NONE', 'CMD', 'CMD-SHELL'].includes(kind)) {
    throw invalidArgument(`unknown type in Healthcheck: ${kind}`);
  }
}

function validateExtraHost(entry: string): void {
  const [, name, address] = /^([^:=]+)[:=](.+)$/.exec(entry) ?? [];
  if (name === undefined || address === undefined) throw invalidArgument(`bad format for add-host: "${entry}"`);
  if (address !== 'host-gateway' && isIP(address.replace(/^\[(.*)\]$/, '$1')) === 0) {
    throw invalidArgument(`invalid IP address in add-host: "${address}"`);
  }
}

function validateCapabilities(field: string, names: readonly string[]): void {
  for (const name of names) {
    const bare = name.toUpperCase().replace(/^CAP_/, '');
    if (bare !== 'ALL' && !capabilities.has(bare)) {
      throw invalidArgument(`invalid ${field}: unknown capability: "CAP_${bare}"`);
    }
  }
}

function validateSecurityOption(option: string): void {
  if (['no-new-privileges', 'writable-cgroups'].includes(option)) return;
  const [, key, value] = /^([^=:]+)[=:]([^]*)$/.exec(option) ?? [];
  if (key === undefined || value === undefined) throw invalidArgument(`invalid --security-opt 1: "${option}"`);
  if (!['label', 'apparmor', 'seccomp', 'no-new-privileges', 'writable-cgroups', 'systempaths'].includes(key)) {
    throw invalidArgument(`invalid --security-opt 2: "${option}"`);
  }
  if (key === 'no-new-privileges' && !/^(true|false|1|0|t|f)$/i.test(value)) {
    throw invalidArgument(`invalid --security-opt 2: "${option}"`);
  }
  if (key === 'seccomp' && !['unconfined', 'builtin'].includes(value)) {
    try {
      JSON.parse(value);
    } catch (cause) {
      throw invalidArgument('Decoding seccomp profile failed: it is not JSON', { cause });
    }
  }
}

function validateNamespaces(host: container.HostConfig): void {
  const container = /^container:.+$/;
  if (!['', 'none', 'private', 'shareable', 'host'].includes(host.ipcMode) && !container.test(host.ipcMode)) {
    throw invalidArgument(`invalid IPC mode: ${host.ipcMode}`);
  }
  if (!['', 'host'].includes(host.pidMode) && !container.test(host.pidMode))
    throw invalidArgument(`invalid PID mode: ${host.pidMode}`);
  if (!['', 'host'].includes(host.utsMode)) throw invalidArgument(`invalid UTS mode: ${host.utsMode}`);
  if (!['', 'host'].includes(host.usernsMode)) throw invalidArgument(`invalid user namespace mode: ${host.usernsMode}`);
  if (!['', 'host', 'private'].includes(host.cgroupnsMode)) {
    throw invalidArgument(`invalid cgroup namespace mode: ${host.cgroupnsMode}`);
  }
  if (!['', 'default'].includes(host.isolation)) throw invalidArgument(`Invalid isolation: "${host.isolation}"`);
}

function validateNetworkConflicts(config: container.ContainerConfig, host: container.HostConfig): void {
  const mode = host.networkMode;
  const conflicting = (what: string): Error => invalidArgument(`conflicting options: ${what}`);
  if (mode === 'host') {
    if (config.macAddress !== '') throw conflicting('mac-address and the network mode');
    if (host.links.length > 0)
      throw conflicting("host type networking can't be used with links. This would result in undefined behavior");
  }
  if (host.utsMode === 'host' && config.hostname !== '') throw conflicting('hostname and the UTS mode');
  if (!mode.startsWith('container:')) return;
  if (mode === 'container:')
    throw invalidArgument('Invalid network mode: invalid container format container:<name|id>');
  if (config.hostname !== '') throw conflicting('hostname and the network mode');
  if (host.links.length > 0)
    throw conflicting("container type network can't be used with links. This would result in undefined behavior");
  if (host.dns.length > 0) throw conflicting('dns and the network mode');
  if (host.extraHosts.length > 0) throw conflicting('custom host-to-IP mapping and the network mode');
  if (config.macAddress !== '') throw conflicting('mac-address and the network mode');
  if (host.portBindings.length > 0 || host.publishAllPorts) {
    throw conflicting('port publishing and the container type network mode');
  }
  if (config.exposedPorts.length > 0) throw conflicting('port exposing and the container type network mode');
}

function isHostname(name: string): boolean {
  return name.length <= 64 && /^[a-zA-Z0-9]([a-zA-Z0-9_.-]*[a-zA-Z0-9])?\.?$/.test(name);
}

function isMacAddress(text: string): boolean {
  return /^([0-9a-f]{2}[:-]){5}[0-9a-f]{2}$/i.test(text);
}

const capabilities = new Set(
  `AUDIT_CONTROL AUDIT_READ AUDIT_WRITE BLOCK_SUSPEND BPF CHECKPOINT_RESTORE CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID IPC_LOCK
  IPC_OWNER KILL LEASE LINUX_IMMUTABLE MAC_ADMIN MAC_OVERRIDE MKNOD NET_ADMIN NET_BIND_SERVICE NET_BROADCAST NET_RAW PERFMON SETFCAP SETGID
  SETPCAP SETUID SYSLOG SYS_ADMIN SYS_BOOT SYS_CHROOT SYS_MODULE SYS_NICE SYS_PACCT SYS_PTRACE SYS_RAWIO SYS_RESOURCE SYS_TIME
  SYS_TTY_CONFIG WAKE_ALARM`.split(/\s+/),
);
