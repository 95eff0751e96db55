import { join } from 'node:path';
import { invalidArgument } from '@flotilla/errors';
import { serviceNames } from './base-config.js';
import type { NatsSettings, ServiceName } from './base-config.js';
import type { IdMappings } from './container-config.js';
import { parseFirewallMark, splitHostPort } from './daemon-keys.js';
import type { DaemonFile } from './daemon-keys.js';
import type { DaemonSettings } from './daemon-settings.js';
import type { ServiceConfigs } from './service-config.js';

/** What the launcher knows beside the settings. */
export interface EngineFacts {
  readonly version: string;
  readonly engineId: string;
  readonly nats: NatsSettings | null;
  /** What `userns-remap` came to; absent: containers run in the host's user namespace. */
  readonly userNamespace?: IdMappings | undefined;
}

/** Docker's pools for IPv4: 172.17.0.0/16 to 172.31.0.0/16, then /20s of 192.168.0.0/16. `size` is the prefix length of a network. */
export const defaultIpv4Pools: { base: string; size: number }[] = [
  { base: '172.17.0.0/16', size: 16 },
  { base: '172.18.0.0/16', size: 16 },
  { base: '172.19.0.0/16', size: 16 },
  { base: '172.20.0.0/14', size: 16 },
  { base: '172.24.0.0/14', size: 16 },
  { base: '172.28.0.0/14', size: 16 },
  { base: '192.168.0.0/16', size: 20 },
];

/** The address of a service of this engine: its socket in the exec root unless configured. */
export function serviceAddress(settings: DaemonSettings, service: ServiceName): string {
  return settings.remoteServices.get(service) ?? `unix:${join(settings.execRoot, `${service}.sock`)}`;
}

/** The configuration file of every service, from the engine's settings. */
export function serviceFiles(settings: DaemonSettings, facts: EngineFacts): ServiceConfigs {
  const { dataRoot, execRoot, given } = settings;
  const services = Object.fromEntries(serviceNames.map((name) => [name, serviceAddress(settings, name)]));
  const base = <N extends ServiceName>(service: N) => ({
    service,
    version: facts.version,
    engineId: facts.engineId,
    dataRoot,
    execRoot,
    dataDir: join(dataRoot, service),
    listen: { kind: 'unix' as const, path: join(execRoot, `${service}.sock`) },
    services,
    nats: facts.nats,
    log: settings.log,
  });
  const runtimes = runtimesOf(settings);
  const defaultRuntime = given['default-runtime'] ?? 'runc';
  if (runtimes[defaultRuntime] === undefined) {
    throw invalidArgument(`specified default runtime '${defaultRuntime}' does not exist`);
  }
  const dns = { dns: given.dns ?? [], dnsOptions: given['dns-opts'] ?? [], dnsSearch: given['dns-search'] ?? [] };
  const defaultAddressPools = given['default-address-pools'] ?? defaultIpv4Pools;
  const { 'host-gateway-ip': hostGatewayIp } = given; // the older spelling, for one
  const hostGatewayIps = given['host-gateway-ips'] ?? (hostGatewayIp === undefined ? [] : [hostGatewayIp]);
  const resolvConfPath = given['resolv-conf'] ?? '/etc/resolv.conf';
  const logDriver = given['log-driver'] ?? 'json-file';
  const initPath = given['init-path'] ?? '/usr/bin/tini-static';
  const seccompProfile = given['seccomp-profile'] ?? 'builtin';
  const insecureRegistries = given['insecure-registries'] ?? [];
  const registryMirrors = given['registry-mirrors'] ?? [];
  const maxConcurrentDownloads = given['max-concurrent-downloads'] ?? 3;
  return {
    'api-gateway': {
      ...base('api-gateway'),
      gateway: {
        hosts: [...settings.hosts],
        group: given.group ?? 'docker',
        debug: given.debug === true,
        labels: given.labels ?? [],
        ...(given['min-api-version'] === undefined ? {} : { minApiVersion: given['min-api-version'] }),
        info: {
          defaultRuntime,
          runtimes,
          logDriver,
          insecureRegistries,
          registryMirrors,
          defaultAddressPools: given['default-address-pools'] ?? [],
          initBinary: initPath,
          seccompProfile,
          liveRestore: given['live-restore'] ?? true,
          ...(facts.userNamespace === undefined ? {} : { userns: true }),
        },
      },
    },
    image: {
      ...base('image'),
      image: {
        maxConcurrentDownloads,
        maxConcurrentUploads: given['max-concurrent-uploads'] ?? 5,
        maxDownloadAttempts: given['max-download-attempts'] ?? 5,
        ...storageDriverOf(given['storage-driver']),
      },
    },
    container: {
      ...base('container'),
      container: {
        defaultRuntime,
        runtimes,
        logDriver,
        logOpts: given['log-opts'] ?? {},
        defaultUlimits: ulimitsOf(given['default-ulimits'] ?? {}),
        defaultShmSizeBytes: bytesOf(given['default-shm-size'] ?? 64 * 1024 * 1024),
        defaultIpcMode: given['default-ipc-mode'] ?? 'private',
        defaultStopTimeoutSeconds: given['default-stop-timeout'] ?? 10,
        init: given.init ?? false,
        initPath,
        noNewPrivileges: given['no-new-privileges'] ?? false,
        seccompProfile,
        cgroupParent: given['cgroup-parent'] ?? '',
        ...(facts.userNamespace === undefined ? {} : { userNamespace: facts.userNamespace }),
        ...storageDriverOf(given['storage-driver']),
        ...dns,
        hostGatewayIps,
        resolvConfPath,
      },
    },
    network: {
      ...base('network'),
      network: {
        bridge: given.bridge ?? 'flotilla0',
        ...(given.bip === undefined ? {} : { bip: given.bip }),
        mtu: given.mtu ?? 0,
        defaultAddressPools,
        defaultHostIp: given.ip ?? '',
        ...(given['fixed-cidr'] === undefined ? {} : { fixedCidr: given['fixed-cidr'] }),
        ...(given['fixed-cidr-v6'] === undefined ? {} : { fixedCidrV6: given['fixed-cidr-v6'] }),
        ipv6: given.ipv6 ?? false,
        icc: given.icc ?? true,
        ipMasq: given['ip-masq'] ?? true,
        iptables: given.iptables ?? true,
        ip6tables: given.ip6tables ?? true,
        allowDirectRouting: given['allow-direct-routing'] ?? false,
        ...acceptedMarkOf(given['bridge-accept-fwmark']),
        ...(given.bip6 === undefined ? {} : { bip6: given.bip6 }),
        ...(given['default-gateway'] === undefined ? {} : { defaultGateway: given['default-gateway'] }),
        ...(given['default-gateway-v6'] === undefined ? {} : { defaultGatewayV6: given['default-gateway-v6'] }),
        defaultNetworkOptions: given['default-network-opts'] ?? {},
        ipForward: given['ip-forward'] ?? true,
        resolvConfPath,
        ...dns,
        hostGatewayIps,
      },
    },
    volume: { ...base('volume'), volume: {} },
    'registry-proxy': {
      ...base('registry-proxy'),
      registry: {
        insecureRegistries,
        mirrors: registryMirrors,
        certsDir: '/etc/docker/certs.d',
        maxConcurrentDownloads,
        ...(given['max-download-attempts'] === undefined
          ? {}
          : { maxDownloadAttempts: given['max-download-attempts'] }),
        ...(given['registry-cache-size'] === undefined ? {} : { cacheBytes: bytesOf(given['registry-cache-size']) }),
        ...(given['registry-listen'] === undefined ? {} : { serve: distributionListen(given['registry-listen']) }),
        ...(given.proxies === undefined ? {} : { proxies: proxiesOf(given.proxies) }),
      },
    },
  };
}

function acceptedMarkOf(text: string | undefined) {
  const acceptedMark = text === undefined ? undefined : parseFirewallMark(text);
  return acceptedMark === undefined ? {} : { acceptedMark };
}

function runtimesOf({ given }: DaemonSettings): Record<string, { path: string; runtimeArgs: string[] }> {
  const runtimes: Record<string, { path: string; runtimeArgs: string[] }> = { runc: { path: 'runc', runtimeArgs: [] } };
  for (const [name, { path, runtimeArgs }] of Object.entries(given.runtimes ?? {})) {
    if (name === 'runc') throw invalidArgument(`runtime name 'runc' is reserved`);
    runtimes[name] = { path, runtimeArgs: runtimeArgs ?? [] };
  }
  return runtimes;
}

function storageDriverOf(given: string | undefined): { storageDriver?: 'overlay2' | 'vfs' } {
  if (given === undefined) return {};
  return { storageDriver: given === 'vfs' ? 'vfs' : 'overlay2' };
}

function proxiesOf(given: NonNullable<DaemonSettings['given']['proxies']>) {
  return {
    httpProxy: given['http-proxy'] ?? '',
    httpsProxy: given['https-proxy'] ?? '',
    noProxy: given['no-proxy'] ?? '',
  };
}

function distributionListen({ address, tls, 'token-file': tokenFile }: NonNullable<DaemonFile['registry-listen']>) {
  const { host = '', port = 0 } = splitHostPort(address) ?? {};
  const ca = tls?.ca === undefined ? {} : { caFile: tls.ca };
  return {
    host,
    port,
    ...(tls === undefined ? {} : { tls: { certFile: tls.cert, keyFile: tls.key, ...ca } }),
    ...(tokenFile === undefined ? {} : { tokenFile }),
  };
}

function ulimitsOf(given: Record<string, { Name: string; Soft?: number | undefined; Hard?: number | undefined }>) {
  return Object.entries(given).map(([key, { Name, Soft, Hard }]) => {
    const hard = Hard ?? Soft ?? 0;
    const soft = Soft ?? hard;
    if (hard !== -1 && (soft > hard || soft === -1)) {
      throw invalidArgument(
        `default-ulimits.${key}: ulimit soft limit must be less than or equal to hard limit: ${soft} > ${hard}`,
      );
    }
    return { name: Name, soft, hard };
  });
}

function bytesOf(size: number | string): number {
  if (typeof size === 'number') return size;
  const [, digits = '0', unit = ''] = /^([\d.]+)\s*([kmgt]?)/i.exec(size) ?? [];
  return Math.floor(Number(digits) * 1024 ** ['', 'k', 'm', 'g', 't'].indexOf(unit.toLowerCase()));
}
