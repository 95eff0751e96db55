import { LOG_DRIVERS } from '@flotilla/config';
import { MAX_API_VERSION, MIN_API_VERSION, apiVersion, formatApiVersion, parseApiVersion } from '@flotilla/docker-api';
import type { SystemVersion, VersionComponent } from '@flotilla/docker-api';
import { container as proto } from '@flotilla/proto';
import type { config as configProto, registry } from '@flotilla/proto';
import { VersionedShape } from '../model/rendered.js';
import { peerNames } from '../peers.js';
import { hostFacts, openFiles } from '../shapes/host-facts.js';
import type { GatewayContext } from './gateway-context.js';

const ASK_MS = 1_500;
/** How long the services' answers about themselves are kept: nothing in them changes while they run but their backlog. */
const KEPT_MS = 2_000;

type ServiceInfo = configProto.GetServiceInfoResponse;

interface Asked {
  readonly at: number;
  readonly infos: Promise<ServiceInfo[]>;
  readonly registry: Promise<registry.GetRegistryConfigResponse | undefined>;
}

/** What the services tell of themselves, asked at most every two seconds. */
export class ServiceFacts {
  readonly #context: GatewayContext;
  #asked: Asked | undefined;

  constructor(context: GatewayContext) {
    this.#context = context;
  }

  /** Of those that answer in time. */
  get infos(): Promise<ServiceInfo[]> {
    return this.#ask().infos;
  }

  /** Undefined when registry-proxy does not answer. */
  get registry(): Promise<registry.GetRegistryConfigResponse | undefined> {
    return this.#ask().registry;
  }

  #ask(): Asked {
    const now = Date.now();
    if (this.#asked !== undefined && now - this.#asked.at < KEPT_MS) return this.#asked;
    const { peers, log } = this.#context;
    const options = { deadlineMs: ASK_MS, retryUnavailableMs: 0 };
    const ask = async (name: (typeof peerNames)[number]): Promise<ServiceInfo[]> => {
      try {
        return [await peers.control[name].getServiceInfo({}, options)];
      } catch (err) {
        log.debug({ peer: name, err }, 'a service tells nothing of itself');
        return [];
      }
    };
    this.#asked = {
      at: now,
      infos: Promise.all(peerNames.map(ask)).then((lists) => lists.flat()),
      registry: peers.registry.getRegistryConfig({}, options).catch(() => undefined),
    };
    return this.#asked;
  }
}

/** The oldest version that this engine serves. */
export const minVersionOf = (context: Pick<GatewayContext, 'config'>): ReturnType<typeof parseApiVersion> => {
  const configured = context.config.gateway.minApiVersion;
  return configured === undefined ? MIN_API_VERSION : parseApiVersion(configured);
};

/** `GET /version`. */
export async function systemVersion(context: GatewayContext, facts: ServiceFacts): Promise<SystemVersion> {
  const { config } = context;
  const host = hostFacts();
  const details = {
    ApiVersion: formatApiVersion(MAX_API_VERSION),
    Arch: host.goArch,
    BuildTime: '',
    Experimental: 'false',
    GitCommit: '',
    GoVersion: process.version,
    KernelVersion: host.kernelVersion,
    MinAPIVersion: formatApiVersion(minVersionOf(context)),
    Os: 'linux',
  };
  const components: VersionComponent[] = [{ Name: 'Engine', Version: config.version, Details: details }];
  for (const info of await facts.infos) {
    for (const { name, version, details: more } of info.components) {
      if (!components.some(({ Name }) => Name === name))
        components.push({ Name: name, Version: version, Details: more });
    }
    components.push({ Name: `flotilla-${info.service}`, Version: info.version, Details: {} });
  }
  return {
    Platform: { Name: 'Flotilla' },
    Components: components,
    Version: config.version,
    ApiVersion: details.ApiVersion,
    MinAPIVersion: details.MinAPIVersion,
    GitCommit: '',
    GoVersion: details.GoVersion,
    Os: 'linux',
    Arch: host.goArch,
    KernelVersion: host.kernelVersion,
    BuildTime: '',
  };
}

/** `GET /info`. */
export type SystemInfo = Record<string, unknown>;

/** `GET /info` with the older forms of it. */
export const infoShape = new VersionedShape<SystemInfo, SystemInfo>(
  (info) => ({ ...info }),
  [
    {
      below: apiVersion(1, 50),
      convert: (info) => {
        delete info['DiscoveredDevices'];
        info['BridgeNfIptables'] = true;
        info['BridgeNfIp6tables'] = true;
      },
    },
    {
      below: apiVersion(1, 49),
      convert: (info) => {
        delete info['FirewallBackend'];
        info['RegistryConfig'] = {
          AllowNondistributableArtifactsCIDRs: [],
          AllowNondistributableArtifactsHostnames: [],
          ...(info['RegistryConfig'] as object),
        };
      },
    },
    {
      below: apiVersion(1, 46),
      convert: (info) => {
        delete info['Containerd'];
      },
    },
    {
      below: apiVersion(1, 44),
      convert: (info) => {
        delete info['CDISpecDirs'];
      },
    },
    {
      below: apiVersion(1, 42),
      convert: (info) => {
        info['KernelMemory'] = false;
        info['KernelMemoryTCP'] = false;
        info['ClusterStore'] = '';
        info['ClusterAdvertise'] = '';
      },
    },
    {
      below: apiVersion(1, 41),
      convert: (info) => {
        delete info['CgroupVersion'];
        delete info['DefaultAddressPools'];
      },
    },
  ],
);

const overlayStatus = [
  ['Supports d_type', 'true'],
  ['Using metacopy', 'false'],
  ['Native Overlay Diff', 'true'],
  ['userxattr', 'false'],
];

/** Everything that `docker info` shows, of the newest version. */
export async function systemInfo(context: GatewayContext, facts: ServiceFacts): Promise<SystemInfo> {
  const { config, model } = context;
  const { gateway } = config;
  const host = hostFacts();
  const [infos, registryConfig] = await Promise.all([facts.infos, facts.registry]);
  const { containers, images } = model.lastKnown();
  const count = (...states: number[]): number =>
    containers.filter(({ state }) => states.includes(state?.status ?? 0)).length;
  const { ContainerStatus } = proto;
  const running = count(ContainerStatus.RUNNING, ContainerStatus.RESTARTING);
  const paused = count(ContainerStatus.PAUSED);
  const component = (name: string): configProto.Component | undefined =>
    infos.flatMap(({ components }) => components).find((entry) => entry.name === name);
  const storageDriver = infos.find(({ service }) => service === 'image')?.storageDriver || 'overlay2';
  const commit = (name: string): { ID: string } => ({
    ID: component(name)?.details['GitCommit'] ?? component(name)?.version ?? '',
  });
  const isCgroup2 = host.cgroupVersion === '2';
  return {
    ID: config.engineId,
    Containers: containers.length,
    ContainersRunning: running,
    ContainersPaused: paused,
    ContainersStopped: containers.length - running - paused,
    Images: images,
    Driver: storageDriver,
    DriverStatus: storageDriver === 'overlay2' ? overlayStatus : null,
    Plugins: {
      Volume: ['local'],
      Network: ['bridge', 'host', 'ipvlan', 'macvlan', 'null'],
      Authorization: null,
      Log: LOG_DRIVERS,
    },
    MemoryLimit: true,
    SwapLimit: host.hasSwapLimit,
    CpuCfsPeriod: true,
    CpuCfsQuota: true,
    CPUShares: true,
    CPUSet: true,
    PidsLimit: true,
    IPv4Forwarding: host.ipv4Forwarding,
    Debug: gateway.debug,
    NFd: openFiles(),
    OomKillDisable: !isCgroup2,
    NGoroutines: 0,
    SystemTime: new Date().toISOString(),
    LoggingDriver: gateway.info.logDriver,
    CgroupDriver: 'cgroupfs',
    CgroupVersion: host.cgroupVersion,
    NEventsListener: 0,
    KernelVersion: host.kernelVersion,
    OperatingSystem: host.operatingSystem,
    OSVersion: host.osVersion,
    OSType: 'linux',
    Architecture: host.machine,
    IndexServerAddress: 'https://index.docker.io/v1/',
    RegistryConfig: registryShape(registryConfig, gateway.info),
    NCPU: host.cpus,
    MemTotal: host.memoryBytes,
    GenericResources: null,
    DockerRootDir: config.dataRoot,
    HttpProxy: '',
    HttpsProxy: '',
    NoProxy: '',
    Name: host.hostname,
    Labels: gateway.labels,
    ExperimentalBuild: false,
    ServerVersion: config.version,
    Runtimes: Object.fromEntries(
      Object.entries(gateway.info.runtimes).map(([name, { path, runtimeArgs }]) => [
        name,
        { path, ...(runtimeArgs.length === 0 ? {} : { runtimeArgs }) },
      ]),
    ),
    DefaultRuntime: gateway.info.defaultRuntime,
    Swarm: {
      NodeID: '',
      NodeAddr: '',
      LocalNodeState: 'inactive',
      ControlAvailable: false,
      Error: '',
      RemoteManagers: null,
    },
    LiveRestoreEnabled: gateway.info.liveRestore,
    Isolation: '',
    InitBinary: gateway.info.initBinary.split('/').at(-1) ?? '',
    ContainerdCommit: commit('containerd-shim'),
    RuncCommit: commit('runc'),
    InitCommit: commit('docker-init'),
    SecurityOptions: [
      ...(host.hasAppArmor ? ['name=apparmor'] : []),
      `name=seccomp,profile=${gateway.info.seccompProfile}`,
      ...(gateway.info.userns === true ? ['name=userns'] : []),
      ...(isCgroup2 ? ['name=cgroupns'] : []),
    ],
    ProductLicense: '',
    DefaultAddressPools: gateway.info.defaultAddressPools.map(({ base, size }) => ({ Base: base, Size: size })),
    FirewallBackend: { Driver: 'nftables' },
    CDISpecDirs: [],
    DiscoveredDevices: [],
    Warnings: infos.flatMap(({ warnings }) => warnings),
  };
}

function registryShape(
  config: registry.GetRegistryConfigResponse | undefined,
  settings: GatewayContext['config']['gateway']['info'],
): unknown {
  const indexes = config?.indexes ?? [
    { name: 'docker.io', mirrors: settings.registryMirrors, secure: true, official: true },
  ];
  return {
    InsecureRegistryCIDRs: config?.insecureCidrs ?? ['::1/128', '127.0.0.0/8'],
    IndexConfigs: Object.fromEntries(
      indexes.map(({ name, mirrors, secure, official }) => [
        name,
        { Name: name, Mirrors: mirrors, Secure: secure, Official: official },
      ]),
    ),
    Mirrors: config?.mirrors ?? settings.registryMirrors,
  };
}
