import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { ContainerConfig } from '@flotilla/config';
import { invalidArgument, messageOf } from '@flotilla/errors';
import { container } from '@flotilla/proto';
import {
  allHostDevices,
  containerEnvironment,
  deviceNumber,
  encodeSpec,
  generateSpec,
  type HostFacts,
  mappedDevices,
  readHostFacts,
  type ResourceLimits,
  type SpecInput,
  type SpecMount,
} from '../spec/index.js';
import type { BuildSpec, SpecRequest } from './spec-input.js';

type EngineDefaults = ContainerConfig['container'];

const defaultCgroupParent = '/flotilla';

/** The `BuildSpec` of the service: what a container asks for, and the engine's defaults, as the runtime's configuration. */
export function containerSpecBuilder(defaults: EngineDefaults): BuildSpec {
  const seccompDefault = readSeccompDefault(defaults.seccompProfile);
  let host: HostFacts | undefined;
  return (request) =>
    encodeSpec(generateSpec(specInput(request, defaults, seccompDefault), (host ??= readHostFacts())));
}

function readSeccompDefault(profile: string): string {
  if (['', 'builtin', 'unconfined'].includes(profile)) return profile === '' ? 'builtin' : profile;
  try {
    return readFileSync(profile, 'utf8');
  } catch (cause) {
    throw invalidArgument(`opening seccomp profile (${profile}) failed: ${messageOf(cause)}`, { cause });
  }
}

function specInput(request: SpecRequest, defaults: EngineDefaults, seccompDefault: string): SpecInput {
  const { container: shown, hostname, user } = request;
  const { config, hostConfig } = shown;
  const resources = hostConfig.resources ?? container.Resources.fromPartial({});
  const security = new Map(hostConfig.securityOpt.map(splitOption));
  const parent = firstOf(resources.cgroupParent, defaults.cgroupParent, defaultCgroupParent);
  const { consoleHeight: height, consoleWidth: width } = hostConfig;
  const devices = hostConfig.privileged
    ? { devices: allHostDevices(), rules: [] }
    : joinDevices(
        resources.devices.map(({ pathOnHost, pathInContainer, cgroupPermissions }) =>
          mappedDevices({ pathOnHost, pathInContainer, permissions: cgroupPermissions }),
        ),
      );
  return {
    process: {
      args: [shown.path, ...shown.args],
      env: containerEnvironment({
        env: config.env,
        hostname,
        terminal: config.tty,
        linked: request.linkedEnvironment,
      }),
      cwd: config.workingDir,
      ...user,
      terminal: config.tty,
      ...(height > 0 && width > 0 ? { consoleSize: { height, width } } : {}),
      oomScoreAdj: hostConfig.oomScoreAdj,
      noNewPrivileges: isTrue(security.get('no-new-privileges')) ?? defaults.noNewPrivileges,
      rlimits: mergeUlimits(defaults.defaultUlimits, resources.ulimits),
      ...(request.appArmorProfile === undefined ? {} : { apparmorProfile: request.appArmorProfile }),
    },
    hostname,
    domainname: config.domainName,
    rootPath: 'rootfs',
    readonlyRootfs: hostConfig.readonlyRootfs,
    privileged: hostConfig.privileged,
    capAdd: hostConfig.capAdd,
    capDrop: hostConfig.capDrop,
    mounts: specMounts(request),
    shm: request.shm,
    ...((hostConfig.init ?? defaults.init) ? { initPath: defaults.initPath } : {}),
    devices: devices.devices,
    deviceRules: devices.rules,
    deviceCgroupRules: resources.deviceCgroupRules,
    ...(hostConfig.maskedPaths === undefined ? {} : { maskedPaths: hostConfig.maskedPaths.values }),
    ...(hostConfig.readonlyPaths === undefined ? {} : { readonlyPaths: hostConfig.readonlyPaths.values }),
    network: request.network,
    ownsNetwork: request.ownsNetwork,
    pid: request.pid,
    ipc: request.ipc,
    ...(request.userNamespace === undefined ? {} : { userNamespace: request.userNamespace }),
    uts: hostConfig.utsMode === 'host' ? { kind: 'host' } : { kind: 'private' },
    cgroup: hostConfig.cgroupnsMode === 'private' ? { kind: 'private' } : { kind: 'host' },
    sysctls: hostConfig.sysctls,
    cgroupsPath: join(parent, shown.id),
    resources: limitsOf(resources),
    seccompProfile: security.get('seccomp') ?? seccompDefault,
    annotations: hostConfig.annotations,
  };
}

/** The container's own files come first, unless the user mounts something in their place. */
function specMounts({ container: shown, etc, mounts }: SpecRequest): SpecMount[] {
  const taken = new Set(mounts.map(({ planned }) => planned.destination));
  const own: [string, string][] = [
    ['/etc/resolv.conf', etc.resolvConf],
    ['/etc/hostname', etc.hostname],
    ['/etc/hosts', etc.hosts],
  ];
  const files = own
    .filter(([destination]) => !taken.has(destination))
    .map(([destination, source]): SpecMount => ({
      type: 'bind',
      source,
      destination,
      readOnly: shown.hostConfig.readonlyRootfs,
      recursive: true,
      propagation: 'rprivate',
    }));
  return [...files, ...mounts.map(({ planned, source }) => specMount(planned, source))];
}

function specMount(planned: SpecRequest['mounts'][number]['planned'], source: string): SpecMount {
  const { destination, readOnly } = planned;
  switch (planned.type) {
    case 'tmpfs':
      return { type: 'tmpfs', destination, options: planned.options };
    case 'volume':
    case 'image':
      return { type: 'bind', source, destination, readOnly, recursive: true, propagation: 'rprivate' };
    case 'bind': {
      const { recursive, propagation, readOnlyDepth } = planned;
      const depth = readOnlyDepth === undefined ? {} : { readOnlyDepth };
      return { type: 'bind', source, destination, readOnly, recursive, propagation, ...depth };
    }
  }
}

/** Limits of a container in the form that the specification takes. */
export function limitsOf(r: container.Resources): ResourceLimits {
  const throttle = (devices: container.ThrottleDevice[]): ResourceLimits['throttleReadBps'] =>
    devices.map(({ path, rate }) => ({ ...deviceNumber(path), rate }));
  return {
    memoryBytes: r.memoryBytes,
    memorySwapBytes: r.memorySwapBytes,
    memoryReservationBytes: r.memoryReservationBytes,
    ...(r.memorySwappiness === undefined ? {} : { memorySwappiness: r.memorySwappiness }),
    oomKillDisable: r.oomKillDisable ?? false,
    cpuShares: r.cpuShares,
    cpuQuota: r.cpuQuota,
    cpuPeriod: r.cpuPeriod,
    nanoCpus: r.nanoCpus,
    cpuRealtimePeriod: r.cpuRealtimePeriod,
    cpuRealtimeRuntime: r.cpuRealtimeRuntime,
    cpusetCpus: r.cpusetCpus,
    cpusetMems: r.cpusetMems,
    ...(r.pidsLimit === undefined ? {} : { pidsLimit: r.pidsLimit }),
    blkioWeight: r.blkioWeight,
    blkioWeightDevices: r.blkioWeightDevice.map(({ path, weight }) => ({ ...deviceNumber(path), weight })),
    throttleReadBps: throttle(r.blkioDeviceReadBps),
    throttleWriteBps: throttle(r.blkioDeviceWriteBps),
    throttleReadIops: throttle(r.blkioDeviceReadIops),
    throttleWriteIops: throttle(r.blkioDeviceWriteIops),
  };
}

function mergeUlimits(
  defaults: EngineDefaults['defaultUlimits'],
  own: readonly container.Ulimit[],
): SpecInput['process']['rlimits'] {
  const merged = new Map(
    defaults.map(({ name, soft, hard }) => [name, { name, soft: BigInt(soft), hard: BigInt(hard) }]),
  );
  for (const limit of own) merged.set(limit.name, limit);
  return [...merged.values()];
}

function joinDevices(mapped: ReturnType<typeof mappedDevices>[]): ReturnType<typeof mappedDevices> {
  return { devices: mapped.flatMap(({ devices }) => devices), rules: mapped.flatMap(({ rules }) => rules) };
}

/** `key=value`, `key:value` or a key alone. */
function splitOption(option: string): [string, string] {
  const at = option.search(/[=:]/);
  return at === -1 ? [option, 'true'] : [option.slice(0, at), option.slice(at + 1)];
}

function isTrue(text: string | undefined): boolean | undefined {
  return text === undefined ? undefined : ['1', 't', 'true'].includes(text.toLowerCase());
}

function firstOf(...texts: string[]): string {
  return texts.find((text) => text !== '') ?? '';
}
