import {
  anything,
  arrayOf,
  boolean,
  int,
  int64,
  mapOf,
  string,
  stringMap,
  stringOrStrings,
  strings,
  struct,
  uint,
  uint16,
  uint32,
  uint64,
} from './decoders.js';
import type { Decoded } from './decoders.js';

const emptyStructs = (goType: string) => mapOf<unknown>(anything, goType, {});

const healthcheck = struct('HealthConfig', {
  Test: strings,
  Interval: int64,
  Timeout: int64,
  StartPeriod: int64,
  StartInterval: int64,
  Retries: int,
});

const configFields = {
  Hostname: string,
  Domainname: string,
  User: string,
  AttachStdin: boolean,
  AttachStdout: boolean,
  AttachStderr: boolean,
  ExposedPorts: emptyStructs('nat.PortSet'),
  Tty: boolean,
  OpenStdin: boolean,
  StdinOnce: boolean,
  Env: strings,
  Cmd: stringOrStrings,
  Healthcheck: healthcheck,
  ArgsEscaped: boolean,
  Image: string,
  Volumes: emptyStructs('map[string]struct {}'),
  WorkingDir: string,
  Entrypoint: stringOrStrings,
  NetworkDisabled: boolean,
  MacAddress: string,
  OnBuild: strings,
  Labels: stringMap,
  StopSignal: string,
  StopTimeout: int,
  Shell: stringOrStrings,
};

const restartPolicy = struct('RestartPolicy', { Name: string, MaximumRetryCount: int });

const throttles = arrayOf(struct('ThrottleDevice', { Path: string, Rate: uint64 }), '[]*blkiodev.ThrottleDevice');

const resourceFields = {
  CpuShares: int64,
  Memory: int64,
  NanoCpus: int64,
  CgroupParent: string,
  BlkioWeight: uint16,
  BlkioWeightDevice: arrayOf(struct('WeightDevice', { Path: string, Weight: uint16 }), '[]*blkiodev.WeightDevice'),
  BlkioDeviceReadBps: throttles,
  BlkioDeviceWriteBps: throttles,
  BlkioDeviceReadIOps: throttles,
  BlkioDeviceWriteIOps: throttles,
  CpuPeriod: int64,
  CpuQuota: int64,
  CpuRealtimePeriod: int64,
  CpuRealtimeRuntime: int64,
  CpusetCpus: string,
  CpusetMems: string,
  Devices: arrayOf(
    struct('DeviceMapping', { PathOnHost: string, PathInContainer: string, CgroupPermissions: string }),
    '[]container.DeviceMapping',
  ),
  DeviceCgroupRules: strings,
  DeviceRequests: arrayOf(
    struct('DeviceRequest', {
      Driver: string,
      Count: int,
      DeviceIDs: strings,
      Capabilities: arrayOf(strings, '[][]string'),
      Options: stringMap,
    }),
    '[]container.DeviceRequest',
  ),
  KernelMemoryTCP: int64,
  MemoryReservation: int64,
  MemorySwap: int64,
  MemorySwappiness: int64,
  OomKillDisable: boolean,
  PidsLimit: int64,
  Ulimits: arrayOf(struct('Ulimit', { Name: string, Hard: int64, Soft: int64 }), '[]*container.Ulimit'),
};

const mount = struct('Mount', {
  Type: string,
  Source: string,
  Target: string,
  ReadOnly: boolean,
  Consistency: string,
  BindOptions: struct('BindOptions', {
    Propagation: string,
    NonRecursive: boolean,
    CreateMountpoint: boolean,
    ReadOnlyNonRecursive: boolean,
    ReadOnlyForceRecursive: boolean,
  }),
  VolumeOptions: struct('VolumeOptions', {
    NoCopy: boolean,
    Labels: stringMap,
    DriverConfig: struct('Driver', { Name: string, Options: stringMap }),
    Subpath: string,
  }),
  TmpfsOptions: struct('TmpfsOptions', { SizeBytes: int64, Mode: uint32, Options: arrayOf(strings, '[][]string') }),
  ImageOptions: struct('ImageOptions', { Subpath: string }),
});

const hostConfig = struct('HostConfig', {
  Binds: strings,
  ContainerIDFile: string,
  LogConfig: struct('LogConfig', { Type: string, Config: stringMap }),
  NetworkMode: string,
  PortBindings: mapOf(
    arrayOf(struct('PortBinding', { HostIp: string, HostPort: string }), '[]nat.PortBinding', {}),
    'nat.PortMap',
    [],
  ),
  RestartPolicy: restartPolicy,
  AutoRemove: boolean,
  VolumeDriver: string,
  VolumesFrom: strings,
  Mounts: arrayOf(mount, '[]mount.Mount'),
  ConsoleSize: arrayOf(uint, '[2]uint', 0),
  Annotations: stringMap,
  CapAdd: stringOrStrings,
  CapDrop: stringOrStrings,
  CgroupnsMode: string,
  Dns: strings,
  DnsOptions: strings,
  DnsSearch: strings,
  ExtraHosts: strings,
  GroupAdd: strings,
  IpcMode: string,
  Cgroup: string,
  Links: strings,
  OomScoreAdj: int,
  PidMode: string,
  Privileged: boolean,
  PublishAllPorts: boolean,
  ReadonlyRootfs: boolean,
  SecurityOpt: strings,
  StorageOpt: stringMap,
  Tmpfs: stringMap,
  UTSMode: string,
  UsernsMode: string,
  ShmSize: int64,
  Sysctls: stringMap,
  Runtime: string,
  Isolation: string,
  MaskedPaths: strings,
  ReadonlyPaths: strings,
  Init: boolean,
  ...resourceFields,
});

/** An entry of `EndpointsConfig`, also the `EndpointConfig` of a connect. */
export const endpointSettings = struct('EndpointSettings', {
  IPAMConfig: struct('EndpointIPAMConfig', { IPv4Address: string, IPv6Address: string, LinkLocalIPs: strings }),
  Links: strings,
  Aliases: strings,
  DriverOpts: stringMap,
  GwPriority: int,
  NetworkID: string,
  MacAddress: string,
});

/** Body of `POST /containers/create`. */
export const createBody = struct('CreateRequest', {
  ...configFields,
  HostConfig: hostConfig,
  NetworkingConfig: struct('NetworkingConfig', {
    EndpointsConfig: mapOf(endpointSettings, 'map[string]*network.EndpointSettings', {}),
  }),
});

/** Body of `POST /commit`. */
export const commitBody = struct('Config', configFields);

/** Body of `POST /containers/{id}/update`. */
export const updateBody = struct('UpdateConfig', { ...resourceFields, RestartPolicy: restartPolicy });

/** Body of `POST /containers/{id}/checkpoints`. */
export const checkpointBody = struct('CreateRequest', { CheckpointID: string, CheckpointDir: string, Exit: boolean });

/** Body of `POST /containers/{id}/exec`. */
export const execBody = struct('ExecOptions', {
  User: string,
  Privileged: boolean,
  Tty: boolean,
  ConsoleSize: arrayOf(uint, '[2]uint', 0),
  AttachStdin: boolean,
  AttachStderr: boolean,
  AttachStdout: boolean,
  DetachKeys: string,
  Env: strings,
  WorkingDir: string,
  Cmd: strings,
});

/** Body of `POST /exec/{id}/start`. */
export const execStartBody = struct('ExecStartOptions', {
  Detach: boolean,
  Tty: boolean,
  ConsoleSize: arrayOf(uint, '[2]uint', 0),
});

export type CreateBody = Decoded<typeof createBody>;
export type ConfigBody = Decoded<typeof commitBody>;
export type HostConfigBody = Decoded<typeof hostConfig>;
export type MountBody = Decoded<typeof mount>;
export type EndpointBody = Decoded<typeof endpointSettings>;
export type ResourcesBody = Decoded<typeof updateBody>;
