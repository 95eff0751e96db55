import type { container } from '@flotilla/proto';
import { listOrNull, mapOrNull } from './common.js';

const DEFAULT_MASKED_PATHS = [
  '/proc/asound',
  '/proc/acpi',
  '/proc/interrupts',
  '/proc/kcore',
  '/proc/keys',
  '/proc/latency_stats',
  '/proc/timer_list',
  '/proc/timer_stats',
  '/proc/sched_debug',
  '/proc/scsi',
  '/sys/firmware',
  '/sys/devices/virtual/powercap',
];
const DEFAULT_READONLY_PATHS = ['/proc/bus', '/proc/fs', '/proc/irq', '/proc/sys', '/proc/sysrq-trigger'];

/** `HostConfig` of `GET /containers/{id}/json`, in dockerd's order. */
export function hostConfigShape(host: container.HostConfig): Record<string, unknown> {
  return {
    Binds: listOrNull(host.binds),
    ContainerIDFile: host.containerIdFile,
    LogConfig: {
      Type: host.logConfig === undefined || host.logConfig.type === '' ? 'json-file' : host.logConfig.type,
      Config: host.logConfig?.config ?? {},
    },
    NetworkMode: host.networkMode,
    PortBindings: Object.fromEntries(
      host.portBindings.map(({ containerPort, hostPorts }) => [
        containerPort,
        hostPorts.map(({ hostIp, hostPort }) => ({ HostIp: hostIp, HostPort: hostPort })),
      ]),
    ),
    RestartPolicy: {
      Name: host.restartPolicy === undefined || host.restartPolicy.name === '' ? 'no' : host.restartPolicy.name,
      MaximumRetryCount: host.restartPolicy?.maximumRetryCount ?? 0,
    },
    AutoRemove: host.autoRemove,
    VolumeDriver: host.volumeDriver,
    VolumesFrom: listOrNull(host.volumesFrom),
    ...(host.mounts.length === 0 ? {} : { Mounts: host.mounts.map(mountRequestShape) }),
    ConsoleSize: [host.consoleHeight, host.consoleWidth],
    ...(Object.keys(host.annotations).length === 0 ? {} : { Annotations: host.annotations }),
    CapAdd: listOrNull(host.capAdd),
    CapDrop: listOrNull(host.capDrop),
    CgroupnsMode: host.cgroupnsMode,
    Dns: host.dns,
    DnsOptions: host.dnsOptions,
    DnsSearch: host.dnsSearch,
    ExtraHosts: listOrNull(host.extraHosts),
    GroupAdd: listOrNull(host.groupAdd),
    IpcMode: host.ipcMode,
    Cgroup: host.cgroup,
    Links: listOrNull(host.links),
    OomScoreAdj: host.oomScoreAdj,
    PidMode: host.pidMode,
    Privileged: host.privileged,
    PublishAllPorts: host.publishAllPorts,
    ReadonlyRootfs: host.readonlyRootfs,
    SecurityOpt: listOrNull(host.securityOpt),
    ...(mapOrNull(host.storageOpt) === null ? {} : { StorageOpt: host.storageOpt }),
    ...(mapOrNull(host.tmpfs) === null ? {} : { Tmpfs: host.tmpfs }),
    UTSMode: host.utsMode,
    UsernsMode: host.usernsMode,
    ShmSize: Number(host.shmSizeBytes),
    ...(mapOrNull(host.sysctls) === null ? {} : { Sysctls: host.sysctls }),
    Runtime: host.runtime === '' ? 'runc' : host.runtime,
    Isolation: host.isolation,
    ...resourcesShape(host.resources),
    MaskedPaths: host.maskedPaths?.values ?? (host.privileged ? null : DEFAULT_MASKED_PATHS),
    ReadonlyPaths: host.readonlyPaths?.values ?? (host.privileged ? null : DEFAULT_READONLY_PATHS),
    ...(host.init === undefined ? {} : { Init: host.init }),
  };
}

function resourcesShape(resources: container.Resources | undefined): Record<string, unknown> {
  const throttle = (devices: readonly container.ThrottleDevice[] | undefined): { Path: string; Rate: number }[] =>
    (devices ?? []).map(({ path, rate }) => ({ Path: path, Rate: Number(rate) }));
  const number = (value: bigint | undefined): number => Number(value ?? 0n);
  return {
    CpuShares: number(resources?.cpuShares),
    Memory: number(resources?.memoryBytes),
    NanoCpus: number(resources?.nanoCpus),
    CgroupParent: resources?.cgroupParent ?? '',
    BlkioWeight: resources?.blkioWeight ?? 0,
    BlkioWeightDevice: (resources?.blkioWeightDevice ?? []).map(({ path, weight }) => ({ Path: path, Weight: weight })),
    BlkioDeviceReadBps: throttle(resources?.blkioDeviceReadBps),
    BlkioDeviceWriteBps: throttle(resources?.blkioDeviceWriteBps),
    BlkioDeviceReadIOps: throttle(resources?.blkioDeviceReadIops),
    BlkioDeviceWriteIOps: throttle(resources?.blkioDeviceWriteIops),
    CpuPeriod: number(resources?.cpuPeriod),
    CpuQuota: number(resources?.cpuQuota),
    CpuRealtimePeriod: number(resources?.cpuRealtimePeriod),
    CpuRealtimeRuntime: number(resources?.cpuRealtimeRuntime),
    CpusetCpus: resources?.cpusetCpus ?? '',
    CpusetMems: resources?.cpusetMems ?? '',
    Devices: (resources?.devices ?? []).map((device) => ({
      PathOnHost: device.pathOnHost,
      PathInContainer: device.pathInContainer,
      CgroupPermissions: device.cgroupPermissions,
    })),
    DeviceCgroupRules: listOrNull(resources?.deviceCgroupRules ?? []),
    DeviceRequests: listOrNull(
      (resources?.deviceRequests ?? []).map((request) => ({
        Driver: request.driver,
        Count: request.count,
        DeviceIDs: listOrNull(request.deviceIds),
        Capabilities: request.capabilities.map(({ values }) => values),
        Options: request.options,
      })),
    ),
    MemoryReservation: number(resources?.memoryReservationBytes),
    MemorySwap: number(resources?.memorySwapBytes),
    // dockerd prints null here, which the public document of the API does not allow.
    ...(resources?.memorySwappiness === undefined ? {} : { MemorySwappiness: Number(resources.memorySwappiness) }),
    OomKillDisable: resources?.oomKillDisable ?? false,
    PidsLimit: resources?.pidsLimit === undefined ? null : Number(resources.pidsLimit),
    Ulimits: (resources?.ulimits ?? []).map(({ name, soft, hard }) => ({
      Name: name,
      Hard: Number(hard),
      Soft: Number(soft),
    })),
    CpuCount: 0,
    CpuPercent: 0,
    IOMaximumIOps: 0,
    IOMaximumBandwidth: 0,
  };
}

const mountRequestShape = (mount: container.MountRequest): Record<string, unknown> => {
  const { bindOptions, volumeOptions, tmpfsOptions, imageOptions } = mount;
  return {
    Type: mount.type,
    ...(mount.source === '' ? {} : { Source: mount.source }),
    Target: mount.target,
    ...(mount.readOnly ? { ReadOnly: true } : {}),
    ...(mount.consistency === '' ? {} : { Consistency: mount.consistency }),
    ...(bindOptions === undefined
      ? {}
      : {
          BindOptions: {
            ...(bindOptions.propagation === '' ? {} : { Propagation: bindOptions.propagation }),
            ...(bindOptions.nonRecursive ? { NonRecursive: true } : {}),
            ...(bindOptions.createMountpoint ? { CreateMountpoint: true } : {}),
            ...(bindOptions.readOnlyNonRecursive ? { ReadOnlyNonRecursive: true } : {}),
            ...(bindOptions.readOnlyForceRecursive ? { ReadOnlyForceRecursive: true } : {}),
          },
        }),
    ...(volumeOptions === undefined
      ? {}
      : {
          VolumeOptions: {
            ...(volumeOptions.noCopy ? { NoCopy: true } : {}),
            ...(mapOrNull(volumeOptions.labels) === null ? {} : { Labels: volumeOptions.labels }),
            ...(volumeOptions.driverName === '' && mapOrNull(volumeOptions.driverOptions) === null
              ? {}
              : { DriverConfig: { Name: volumeOptions.driverName, Options: volumeOptions.driverOptions } }),
            ...(volumeOptions.subpath === '' ? {} : { Subpath: volumeOptions.subpath }),
          },
        }),
    ...(tmpfsOptions === undefined
      ? {}
      : {
          TmpfsOptions: {
            ...(tmpfsOptions.sizeBytes === 0n ? {} : { SizeBytes: Number(tmpfsOptions.sizeBytes) }),
            ...(tmpfsOptions.mode === 0 ? {} : { Mode: tmpfsOptions.mode }),
            ...(tmpfsOptions.options.length === 0 ? {} : { Options: tmpfsOptions.options.map(({ values }) => values) }),
          },
        }),
    ...(imageOptions === undefined
      ? {}
      : { ImageOptions: imageOptions.subpath === '' ? {} : { Subpath: imageOptions.subpath } }),
  };
};
