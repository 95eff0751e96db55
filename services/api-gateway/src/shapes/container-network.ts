import type { ContainerNetworkSettings, EndpointSettings, PortBinding, PortSummary } from '@flotilla/docker-api';
import type { container, network } from '@flotilla/proto';
import { listOrNull, mapOrNull } from './common.js';
import { isRunning } from './container-state.js';

/** One entry of `NetworkSettings.Networks`. */
export function endpointShape(settings: container.EndpointSettings): EndpointSettings {
  const { request, endpoint } = settings;
  return {
    IPAMConfig: ipamConfig(request),
    Links: listOrNull(request?.links ?? []),
    Aliases: listOrNull(request?.aliases ?? []),
    DriverOpts: mapOrNull(request?.driverOptions ?? {}),
    GwPriority: request?.gatewayPriority ?? 0,
    ...addresses(settings),
    DNSNames: listOrNull(endpoint?.dnsNames ?? []),
  };
}

/** The same in a list of containers, which leaves out what was asked for. */
export const endpointSummary = (settings: container.EndpointSettings): EndpointSettings => ({
  IPAMConfig: ipamConfig(settings.request),
  Links: null,
  Aliases: null,
  DriverOpts: null,
  GwPriority: settings.request?.gatewayPriority ?? 0,
  ...addresses(settings),
  DNSNames: null,
});

const addresses = (
  settings: container.EndpointSettings,
): Pick<
  EndpointSettings,
  | 'MacAddress'
  | 'NetworkID'
  | 'EndpointID'
  | 'Gateway'
  | 'IPAddress'
  | 'IPPrefixLen'
  | 'IPv6Gateway'
  | 'GlobalIPv6Address'
  | 'GlobalIPv6PrefixLen'
> => {
  const { endpoint } = settings;
  return {
    MacAddress: endpoint?.macAddress ?? '',
    NetworkID: settings.networkId,
    EndpointID: endpoint?.id ?? '',
    Gateway: endpoint?.gateway ?? '',
    IPAddress: endpoint?.ipv4Address ?? '',
    IPPrefixLen: endpoint?.ipv4PrefixLength ?? 0,
    IPv6Gateway: endpoint?.ipv6Gateway ?? '',
    GlobalIPv6Address: endpoint?.ipv6Address ?? '',
    GlobalIPv6PrefixLen: endpoint?.ipv6PrefixLength ?? 0,
  };
};

function ipamConfig(request: network.EndpointRequest | undefined): EndpointSettings['IPAMConfig'] {
  if (request === undefined) return null;
  const { ipv4Address, ipv6Address, linkLocalIps } = request;
  if (ipv4Address === '' && ipv6Address === '' && linkLocalIps.length === 0) return null;
  return {
    ...(ipv4Address === '' ? {} : { IPv4Address: ipv4Address }),
    ...(ipv6Address === '' ? {} : { IPv6Address: ipv6Address }),
    ...(linkLocalIps.length === 0 ? {} : { LinkLocalIPs: linkLocalIps }),
  };
}

/** Whether the container has a network namespace of its own that ports can be published from. */
const hasPorts = (object: container.Container): boolean => {
  const mode = object.hostConfig?.networkMode ?? '';
  return isRunning(object.state?.status ?? 0) && mode !== 'host' && mode !== 'none' && !mode.startsWith('container:');
};

/** `NetworkSettings.Ports`: every exposed port, with where it is published while the container runs. */
export function portMap(object: container.Container): Record<string, PortBinding[] | null> {
  const ports: Record<string, PortBinding[] | null> = {};
  if (!hasPorts(object)) return ports;
  for (const exposed of object.config?.exposedPorts ?? []) ports[exposed] = null;
  for (const binding of object.networkSettings?.ports ?? []) {
    const key = `${binding.containerPort}/${binding.protocol}`;
    (ports[key] ??= []).push({
      HostIp: binding.hostIp === '' ? '0.0.0.0' : binding.hostIp,
      HostPort: binding.hostPort === 0 ? '' : String(binding.hostPort), // 0: a routed network's, reached without the host
    });
  }
  return ports;
}

/** `Ports` of a list of containers. */
export function portSummaries(object: container.Container): PortSummary[] {
  const summaries: PortSummary[] = [];
  for (const [key, bindings] of Object.entries(portMap(object))) {
    const [number = '', protocol = 'tcp'] = key.split('/');
    const port = { PrivatePort: Number(number), Type: protocol };
    if (bindings === null) summaries.push(port);
    else
      for (const { HostIp, HostPort } of bindings)
        summaries.push(
          HostPort === ''
            ? port
            : { IP: HostIp, PrivatePort: port.PrivatePort, PublicPort: Number(HostPort), Type: protocol },
        );
  }
  return summaries;
}

/** `NetworkSettings` of `GET /containers/{id}/json`. */
export function networkSettingsShape(object: container.Container): ContainerNetworkSettings {
  const settings = object.networkSettings;
  const networks = settings?.networks ?? [];
  // The top-level addresses are those of the default bridge, as they were before there were other networks.
  const bridge = networks.find((entry) => entry.network === 'bridge')?.endpoint;
  return {
    Bridge: '',
    SandboxID: settings?.sandboxId ?? '',
    SandboxKey: settings?.sandboxKey ?? '',
    Ports: portMap(object),
    HairpinMode: false,
    LinkLocalIPv6Address: '',
    LinkLocalIPv6PrefixLen: 0,
    SecondaryIPAddresses: null,
    SecondaryIPv6Addresses: null,
    EndpointID: bridge?.id ?? '',
    Gateway: bridge?.gateway ?? '',
    GlobalIPv6Address: bridge?.ipv6Address ?? '',
    GlobalIPv6PrefixLen: bridge?.ipv6PrefixLength ?? 0,
    IPAddress: bridge?.ipv4Address ?? '',
    IPPrefixLen: bridge?.ipv4PrefixLength ?? 0,
    IPv6Gateway: bridge?.ipv6Gateway ?? '',
    MacAddress: bridge?.macAddress ?? '',
    Networks: Object.fromEntries(networks.map((entry) => [entry.network, endpointShape(entry)])),
  };
}
