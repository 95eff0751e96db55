import { apiVersion } from '@flotilla/docker-api';
import type { ApiVersion } from '@flotilla/docker-api';
import { invalidArgument } from '@flotilla/errors';
import type { common, container, network } from '@flotilla/proto';
import type {
  ConfigBody,
  CreateBody,
  EndpointBody,
  HostConfigBody,
  MountBody,
  ResourcesBody,
} from '../json/container-bodies.js';

const PORT_FORM = /^(\d{1,5}(?:-\d{1,5})?)(?:\/(tcp|udp|sctp))?$/i;

/** `80`, `80/TCP` -> `80/tcp`. @throws EngineError `invalidArgument` for anything else */
function portKey(text: string): string {
  const match = PORT_FORM.exec(text);
  const ports = (match?.[1] ?? '').split('-').map(Number);
  if (match === null || ports.some((port) => port > 65_535))
    throw invalidArgument(`invalid port specification: "${text}"`);
  return `${match[1] ?? ''}/${(match[2] ?? 'tcp').toLowerCase()}`;
}

const record = (map: ReadonlyMap<string, string> | undefined): Record<string, string> => Object.fromEntries(map ?? []);

/** The part of a create or commit body that describes the process. */
export function containerConfig(body: ConfigBody): container.ContainerConfig {
  return {
    hostname: body.Hostname ?? '',
    domainName: body.Domainname ?? '',
    user: body.User ?? '',
    attachStdin: body.AttachStdin ?? false,
    attachStdout: body.AttachStdout ?? false,
    attachStderr: body.AttachStderr ?? false,
    exposedPorts: [...(body.ExposedPorts?.keys() ?? [])].map(portKey),
    tty: body.Tty ?? false,
    openStdin: body.OpenStdin ?? false,
    stdinOnce: body.StdinOnce ?? false,
    env: body.Env ?? [],
    cmd: body.Cmd ?? [],
    healthcheck: healthcheck(body.Healthcheck),
    argsEscaped: body.ArgsEscaped ?? false,
    image: body.Image ?? '',
    volumes: [...(body.Volumes?.keys() ?? [])],
    workingDir: body.WorkingDir ?? '',
    entrypoint: body.Entrypoint ?? [],
    networkDisabled: body.NetworkDisabled ?? false,
    macAddress: body.MacAddress ?? '',
    onBuild: body.OnBuild ?? [],
    labels: record(body.Labels),
    stopSignal: body.StopSignal ?? '',
    stopTimeoutSeconds: body.StopTimeout,
    shell: body.Shell ?? [],
    hasEntrypoint: body.Entrypoint !== undefined,
    hasCmd: body.Cmd !== undefined,
  };
}

function healthcheck(check: ConfigBody['Healthcheck']): common.Healthcheck | undefined {
  if (check === undefined) return undefined;
  return {
    test: check.Test ?? [],
    intervalNs: check.Interval ?? 0n,
    timeoutNs: check.Timeout ?? 0n,
    retries: BigInt(check.Retries ?? 0),
    startPeriodNs: check.StartPeriod ?? 0n,
    startIntervalNs: check.StartInterval ?? 0n,
  };
}

const throttles = (devices: ResourcesBody['BlkioDeviceReadBps']): container.ThrottleDevice[] =>
  (devices ?? []).map(({ Path = '', Rate = 0n }) => ({ path: Path, rate: Rate }));

/** Limits of a create or update body. */
export const resources = (body: ResourcesBody): container.Resources => ({
  cpuShares: body.CpuShares ?? 0n,
  memoryBytes: body.Memory ?? 0n,
  nanoCpus: body.NanoCpus ?? 0n,
  cgroupParent: body.CgroupParent ?? '',
  blkioWeight: body.BlkioWeight ?? 0,
  blkioWeightDevice: (body.BlkioWeightDevice ?? []).map(({ Path = '', Weight = 0 }) => ({
    path: Path,
    weight: Weight,
  })),
  blkioDeviceReadBps: throttles(body.BlkioDeviceReadBps),
  blkioDeviceWriteBps: throttles(body.BlkioDeviceWriteBps),
  blkioDeviceReadIops: throttles(body.BlkioDeviceReadIOps),
  blkioDeviceWriteIops: throttles(body.BlkioDeviceWriteIOps),
  cpuPeriod: body.CpuPeriod ?? 0n,
  cpuQuota: body.CpuQuota ?? 0n,
  cpuRealtimePeriod: body.CpuRealtimePeriod ?? 0n,
  cpuRealtimeRuntime: body.CpuRealtimeRuntime ?? 0n,
  cpusetCpus: body.CpusetCpus ?? '',
  cpusetMems: body.CpusetMems ?? '',
  devices: (body.Devices ?? []).map((device) => ({
    pathOnHost: device.PathOnHost ?? '',
    pathInContainer: device.PathInContainer ?? '',
    cgroupPermissions: device.CgroupPermissions ?? '',
  })),
  deviceCgroupRules: body.DeviceCgroupRules ?? [],
  deviceRequests: (body.DeviceRequests ?? []).map((request) => ({
    driver: request.Driver ?? '',
    count: request.Count ?? 0,
    deviceIds: request.DeviceIDs ?? [],
    capabilities: (request.Capabilities ?? []).map((values) => ({ values })),
    options: record(request.Options),
  })),
  kernelMemoryTcpBytes: body.KernelMemoryTCP ?? 0n,
  memoryReservationBytes: body.MemoryReservation ?? 0n,
  memorySwapBytes: body.MemorySwap ?? 0n,
  // The CLI says -1 for "not given", and dockerd shows it so.
  memorySwappiness: body.MemorySwappiness === -1n ? undefined : body.MemorySwappiness,
  oomKillDisable: body.OomKillDisable,
  pidsLimit: body.PidsLimit,
  ulimits: (body.Ulimits ?? []).map(({ Name = '', Hard = 0n, Soft = 0n }) => ({ name: Name, hard: Hard, soft: Soft })),
});

function mountRequest(mount: MountBody, version: ApiVersion): container.MountRequest {
  const { BindOptions: bind, VolumeOptions: volume, TmpfsOptions: tmpfs, ImageOptions: image } = mount;
  if (mount.Type === 'image' && version < apiVersion(1, 48)) {
    throw invalidArgument('Mount type "Image" needs API v1.48 or newer');
  }
  return {
    type: mount.Type ?? '',
    source: mount.Source ?? '',
    target: mount.Target ?? '',
    readOnly: mount.ReadOnly ?? false,
    consistency: mount.Consistency ?? '',
    bindOptions:
      bind === undefined
        ? undefined
        : {
            propagation: bind.Propagation ?? '',
            nonRecursive: version >= apiVersion(1, 40) && (bind.NonRecursive ?? false),
            createMountpoint: version >= apiVersion(1, 42) && (bind.CreateMountpoint ?? false),
            readOnlyNonRecursive: version >= apiVersion(1, 44) && (bind.ReadOnlyNonRecursive ?? false),
            readOnlyForceRecursive: version >= apiVersion(1, 44) && (bind.ReadOnlyForceRecursive ?? false),
          },
    volumeOptions:
      volume === undefined
        ? undefined
        : {
            noCopy: volume.NoCopy ?? false,
            labels: record(volume.Labels),
            driverName: volume.DriverConfig?.Name ?? '',
            driverOptions: record(volume.DriverConfig?.Options),
            subpath: version >= apiVersion(1, 45) ? (volume.Subpath ?? '') : '',
          },
    tmpfsOptions:
      tmpfs === undefined
        ? undefined
        : {
            sizeBytes: tmpfs.SizeBytes ?? 0n,
            mode: tmpfs.Mode ?? 0,
            options: version >= apiVersion(1, 46) ? (tmpfs.Options ?? []).map((values) => ({ values })) : [],
          },
    imageOptions: image === undefined ? undefined : { subpath: image.Subpath ?? '' },
  };
}

function hostConfig(body: HostConfigBody, version: ApiVersion): container.HostConfig {
  const [consoleHeight = 0, consoleWidth = 0] = body.ConsoleSize ?? [];
  const mode = body.NetworkMode ?? '';
  return {
    binds: body.Binds ?? [],
    containerIdFile: body.ContainerIDFile ?? '',
    logConfig: { type: body.LogConfig?.Type ?? '', config: record(body.LogConfig?.Config) },
    networkMode: mode === '' || mode === 'default' ? 'bridge' : mode,
    portBindings: [...(body.PortBindings ?? [])].map(([port, bindings]) => ({
      containerPort: portKey(port),
      hostPorts: bindings.map(({ HostIp = '', HostPort = '' }) => ({ hostIp: HostIp, hostPort: HostPort })),
    })),
    restartPolicy: {
      name: body.RestartPolicy?.Name ?? '',
      maximumRetryCount: body.RestartPolicy?.MaximumRetryCount ?? 0,
    },
    autoRemove: body.AutoRemove ?? false,
    volumeDriver: body.VolumeDriver ?? '',
    volumesFrom: body.VolumesFrom ?? [],
    mounts: (body.Mounts ?? []).map((mount) => mountRequest(mount, version)),
    consoleHeight,
    consoleWidth,
    annotations: version >= apiVersion(1, 43) ? record(body.Annotations) : {},
    capAdd: body.CapAdd ?? [],
    capDrop: body.CapDrop ?? [],
    cgroupnsMode: version >= apiVersion(1, 41) ? (body.CgroupnsMode ?? '') : '',
    dns: body.Dns ?? [],
    dnsOptions: body.DnsOptions ?? [],
    dnsSearch: body.DnsSearch ?? [],
    extraHosts: body.ExtraHosts ?? [],
    groupAdd: body.GroupAdd ?? [],
    // Clients before 1.40 expect that other containers may join the namespace.
    ipcMode: body.IpcMode ?? (version < apiVersion(1, 40) ? 'shareable' : ''),
    cgroup: body.Cgroup ?? '',
    links: body.Links ?? [],
    oomScoreAdj: body.OomScoreAdj ?? 0,
    pidMode: body.PidMode ?? '',
    privileged: body.Privileged ?? false,
    publishAllPorts: body.PublishAllPorts ?? false,
    readonlyRootfs: body.ReadonlyRootfs ?? false,
    securityOpt: body.SecurityOpt ?? [],
    storageOpt: record(body.StorageOpt),
    tmpfs: record(body.Tmpfs),
    utsMode: body.UTSMode ?? '',
    usernsMode: body.UsernsMode ?? '',
    shmSizeBytes: body.ShmSize ?? 0n,
    sysctls: record(body.Sysctls),
    runtime: body.Runtime ?? '',
    isolation: body.Isolation ?? '',
    maskedPaths: body.MaskedPaths === undefined ? undefined : { values: body.MaskedPaths },
    readonlyPaths: body.ReadonlyPaths === undefined ? undefined : { values: body.ReadonlyPaths },
    init: body.Init,
    resources: resources(body),
  };
}

/** What a container asks of a network, from an `EndpointsConfig` entry or a connect body. */
export const endpointRequest = (networkName: string, settings: EndpointBody): network.EndpointRequest => ({
  network: networkName,
  aliases: settings.Aliases ?? [],
  links: settings.Links ?? [],
  ipv4Address: settings.IPAMConfig?.IPv4Address ?? '',
  ipv6Address: settings.IPAMConfig?.IPv6Address ?? '',
  linkLocalIps: settings.IPAMConfig?.LinkLocalIPs ?? [],
  macAddress: settings.MacAddress ?? '',
  driverOptions: record(settings.DriverOpts),
  gatewayPriority: settings.GwPriority ?? 0,
});

/**
 * A create body as the container service takes it.
 * @throws EngineError `invalidArgument` for a body without any configuration, and for impossible ports and networks
 */
export function createContainerRequest(
  name: string,
  platform: common.Platform | undefined,
  body: CreateBody | undefined,
  version: ApiVersion,
): container.CreateContainerRequest {
  if (body === undefined || Object.keys(body).every((key) => key === 'HostConfig' || key === 'NetworkingConfig')) {
    throw invalidArgument('config cannot be empty in order to create a container');
  }
  const host = hostConfig(body.HostConfig ?? {}, version);
  const endpoints = [...(body.NetworkingConfig?.EndpointsConfig ?? [])].map(([network, settings]) =>
    endpointRequest(network === 'default' ? host.networkMode : network, settings),
  );
  if (version < apiVersion(1, 44) && endpoints.length > 1) {
    throw invalidArgument(
      `Container cannot be connected to network endpoints: ${endpoints.map(({ network }) => network).join(', ')}`,
    );
  }
  const mac = body.MacAddress ?? '';
  if (mac !== '' && endpoints.every(({ macAddress }) => macAddress === '')) {
    let main = endpoints.find(({ network }) => network === host.networkMode);
    if (main === undefined) endpoints.push((main = endpointRequest(host.networkMode, {})));
    main.macAddress = mac;
  }
  return { name, config: containerConfig(body), hostConfig: host, endpoints, platform };
}
