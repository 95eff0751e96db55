import { apiVersion } from '@flotilla/docker-api';
import type { ContainerConfig, ContainerInspect, ContainerSummary, MountPoint } from '@flotilla/docker-api';
import { timestampToRfc3339Nano } from '@flotilla/proto';
import type { container } from '@flotilla/proto';
import { VersionedShape } from '../model/rendered.js';
import { descriptorShape, healthConfigShape, listOrNull, setOf, unixSeconds } from './common.js';
import { endpointSummary, networkSettingsShape, portSummaries } from './container-network.js';
import { stateShape, statusName } from './container-state.js';
import { hostConfigShape } from './host-config.js';

const SHORT_ID_LENGTH = 12;

function configShape(config: container.ContainerConfig): ContainerConfig {
  return {
    Hostname: config.hostname,
    Domainname: config.domainName,
    User: config.user,
    AttachStdin: config.attachStdin,
    AttachStdout: config.attachStdout,
    AttachStderr: config.attachStderr,
    ...(config.exposedPorts.length === 0 ? {} : { ExposedPorts: setOf(config.exposedPorts) }),
    Tty: config.tty,
    OpenStdin: config.openStdin,
    StdinOnce: config.stdinOnce,
    Env: config.env,
    Cmd: listOrNull(config.cmd),
    ...(config.healthcheck === undefined ? {} : { Healthcheck: healthConfigShape(config.healthcheck) }),
    ...(config.argsEscaped ? { ArgsEscaped: true } : {}),
    Image: config.image,
    Volumes: config.volumes.length === 0 ? null : setOf(config.volumes),
    WorkingDir: config.workingDir,
    Entrypoint: listOrNull(config.entrypoint),
    ...(config.networkDisabled ? { NetworkDisabled: true } : {}),
    ...(config.macAddress === '' ? {} : { MacAddress: config.macAddress }),
    OnBuild: listOrNull(config.onBuild),
    Labels: config.labels,
    ...(config.stopSignal === '' ? {} : { StopSignal: config.stopSignal }),
    ...(config.stopTimeoutSeconds === undefined ? {} : { StopTimeout: config.stopTimeoutSeconds }),
    ...(config.shell.length === 0 ? {} : { Shell: config.shell }),
  };
}

const mountShape = (mount: container.MountPoint): MountPoint => ({
  Type: mount.type,
  ...(mount.name === '' ? {} : { Name: mount.name }),
  Source: mount.source,
  Destination: mount.destination,
  ...(mount.driver === '' ? {} : { Driver: mount.driver }),
  Mode: mount.mode,
  RW: mount.rw,
  Propagation: mount.propagation,
});

function graphDriver(object: container.Container): ContainerInspect['GraphDriver'] {
  if (object.driver === 'vfs') return { Data: null, Name: 'vfs' };
  const data = {
    ID: object.id,
    LowerDir: object.lowerDirs.join(':'),
    MergedDir: object.mergedDir,
    UpperDir: object.upperDir,
    WorkDir: object.workDir,
  };
  return { Data: data, Name: driverOf(object) };
}

const driverOf = (object: container.Container): string => (object.driver === '' ? 'overlay2' : object.driver);

const EMPTY_STATE: container.ContainerState = { status: 0, pid: 0, exitCode: 0, error: '', oomKilled: false };

function inspectShape(object: container.Container): ContainerInspect {
  const { config, hostConfig } = object;
  return {
    Id: object.id,
    Created: timestampToRfc3339Nano(object.createdAt),
    Path: object.path,
    Args: object.args,
    State: stateShape(object.state ?? EMPTY_STATE),
    Image: object.imageId,
    ResolvConfPath: object.resolvConfPath,
    HostnamePath: object.hostnamePath,
    HostsPath: object.hostsPath,
    LogPath: object.logPath,
    Name: `/${object.name}`,
    RestartCount: object.restartCount,
    Driver: driverOf(object),
    Platform: object.platform?.os ?? 'linux',
    MountLabel: object.mountLabel,
    ProcessLabel: object.processLabel,
    AppArmorProfile: object.appArmorProfile,
    ExecIDs: listOrNull(object.execIds),
    HostConfig: hostConfig === undefined ? {} : hostConfigShape(hostConfig),
    GraphDriver: graphDriver(object),
    Mounts: object.mounts.map(mountShape),
    Config: configShape(config ?? EMPTY_CONFIG),
    NetworkSettings: networkSettingsShape(object),
    ...(object.imageDescriptor === undefined
      ? {}
      : { ImageManifestDescriptor: descriptorShape(object.imageDescriptor) }),
  };
}

const EMPTY_CONFIG: container.ContainerConfig = {
  hostname: '',
  domainName: '',
  user: '',
  attachStdin: false,
  attachStdout: false,
  attachStderr: false,
  exposedPorts: [],
  tty: false,
  openStdin: false,
  stdinOnce: false,
  env: [],
  cmd: [],
  argsEscaped: false,
  image: '',
  volumes: [],
  workingDir: '',
  entrypoint: [],
  networkDisabled: false,
  macAddress: '',
  onBuild: [],
  labels: {},
  stopSignal: '',
  shell: [],
  hasEntrypoint: false,
  hasCmd: false,
};

const isUserDefined = (network: string): boolean => !['bridge', 'host', 'none', 'default'].includes(network);

/** `GET /containers/{id}/json` with the older forms of it. */
export const containerInspect = new VersionedShape<container.Container, ContainerInspect>(inspectShape, [
  {
    below: apiVersion(1, 48),
    convert: (shape) => {
      delete shape.ImageManifestDescriptor;
      for (const endpoint of Object.values(shape.NetworkSettings.Networks)) delete endpoint.GwPriority;
    },
  },
  {
    // Aliases used to hold the short id and the host name, which DNSNames has since.
    below: apiVersion(1, 45),
    convert: (shape) => {
      for (const [network, endpoint] of Object.entries(shape.NetworkSettings.Networks)) {
        if (!isUserDefined(network)) continue;
        endpoint.Aliases = [
          ...new Set([...(endpoint.Aliases ?? []), shape.Id.slice(0, SHORT_ID_LENGTH), shape.Config.Hostname]),
        ];
      }
    },
  },
  {
    below: apiVersion(1, 44),
    convert: (shape) => {
      if (shape.Config.Healthcheck !== undefined) delete shape.Config.Healthcheck.StartInterval;
      for (const endpoint of Object.values(shape.NetworkSettings.Networks))
        delete (endpoint as Partial<typeof endpoint>).DNSNames;
    },
  },
  {
    below: apiVersion(1, 43),
    convert: (shape) => {
      delete shape.HostConfig['Annotations'];
    },
  },
  {
    below: apiVersion(1, 42),
    convert: (shape) => {
      shape.HostConfig['KernelMemory'] = 0;
      shape.HostConfig['KernelMemoryTCP'] = 0;
    },
  },
  {
    below: apiVersion(1, 41),
    convert: (shape) => {
      delete shape.HostConfig['CgroupnsMode'];
    },
  },
]);

/** Path and arguments in one line; arguments with blanks in quotes. */
const commandLine = (object: container.Container): string =>
  [object.path, ...object.args.map((arg) => (arg.includes(' ') ? `'${arg}'` : arg))].join(' ');

/** A container of a list together with the image name that its reference still stands for. */
export interface ListedContainer {
  readonly object: container.Container;
  readonly image: string;
}

/** Stands where {@link ContainerSummary.Status} goes until the time is known. */
export const STATUS_MARK = '\u0000status\u0000';

function summaryShape({ object, image }: ListedContainer): ContainerSummary {
  return {
    Id: object.id,
    Names: [`/${object.name}`],
    Image: image,
    ImageID: object.imageId,
    ...(object.imageDescriptor === undefined
      ? {}
      : { ImageManifestDescriptor: descriptorShape(object.imageDescriptor) }),
    Command: commandLine(object),
    Created: unixSeconds(object.createdAt),
    Ports: portSummaries(object),
    Labels: object.config?.labels ?? {},
    State: statusName(object.state?.status ?? 0),
    Status: STATUS_MARK,
    HostConfig: {
      NetworkMode: object.hostConfig?.networkMode ?? '',
      ...(Object.keys(object.hostConfig?.annotations ?? {}).length === 0
        ? {}
        : { Annotations: object.hostConfig?.annotations ?? {} }),
    },
    NetworkSettings: {
      Networks: Object.fromEntries(
        (object.networkSettings?.networks ?? []).map((entry) => [entry.network, endpointSummary(entry)]),
      ),
    },
    Mounts: object.mounts.map(mountShape),
  };
}

/** An entry of `GET /containers/json` with the older forms of it. */
export const containerSummary = new VersionedShape<ListedContainer, ContainerSummary>(summaryShape, [
  {
    below: apiVersion(1, 48),
    convert: (shape) => {
      delete shape.ImageManifestDescriptor;
      for (const endpoint of Object.values(shape.NetworkSettings.Networks)) delete endpoint.GwPriority;
    },
  },
  {
    below: apiVersion(1, 46),
    convert: (shape) => {
      delete shape.HostConfig.Annotations;
    },
  },
  {
    below: apiVersion(1, 44),
    convert: (shape) => {
      for (const endpoint of Object.values(shape.NetworkSettings.Networks))
        delete (endpoint as Partial<typeof endpoint>).DNSNames;
    },
  },
]);
