import { familyOf } from '@flotilla/netlink';
import type {
  AddressWithPrefix,
  InterfaceSpec,
  Publication,
  SandboxSpec,
  SandboxTraces,
} from '../kernel/kernel-operations.js';
import { addressesOfEndpoint } from '../networks/allocations.js';
import type { EndpointRecord, NetworkRecord, PortRecord, SandboxRecord } from '../store/records.js';
import { interfaceSysctls } from './endpoint-options.js';
import { chooseGateway, choosePublishers } from './gateway-choice.js';
import type { Candidate } from './gateway-choice.js';

type NetworkOf = (id: string) => NetworkRecord | undefined;

/** Endpoints with their networks; an endpoint whose network is gone is left out. */
export function candidatesOf({ endpoints }: SandboxRecord, networkOf: NetworkOf): Candidate[] {
  return endpoints.flatMap((endpoint) => {
    const network = networkOf(endpoint.networkId);
    return network === undefined ? [] : [{ endpoint, network }];
  });
}

/** The interface of an endpoint; undefined on networks that give none (host, none). */
export function interfaceSpec(endpoint: EndpointRecord, network: NetworkRecord): InterfaceSpec | undefined {
  const { bridge, parent } = network;
  const common = {
    name: endpoint.interfaceName,
    mac: endpoint.macAddress,
    addresses: addressesWithPrefix(endpoint),
    sysctls: interfaceSysctls(endpoint.driverOptions),
  };
  if (bridge !== undefined) {
    return {
      kind: 'veth',
      ...common,
      hostName: endpoint.hostInterfaceName,
      mtu: bridge.mtu,
      bridge: bridge.name,
      isIsolated: !bridge.areNeighboursAllowed,
    };
  }
  if (parent === undefined) return undefined;
  return parent.kind === 'macvlan'
    ? { kind: 'macvlan', ...common, parent: parent.name, mode: parent.mode }
    : { kind: 'ipvlan', ...common, parent: parent.name, mode: parent.mode, flag: parent.flag };
}

/** What the kernel should have for a sandbox; undefined for those in the engine's own namespace. */
export function sandboxSpec(sandbox: SandboxRecord, networkOf: NetworkOf): SandboxSpec | undefined {
  if (sandbox.isHostMode) return undefined;
  const candidates = candidatesOf(sandbox, networkOf);
  const gateway = chooseGateway(candidates);
  return {
    containerId: sandbox.containerId,
    interfaces: candidates.flatMap(({ endpoint, network }) => interfaceSpec(endpoint, network) ?? []),
    publications: publicationsOf(sandbox.ports, candidates),
    ...(gateway === undefined ? {} : { gateway }),
    ...(sandbox.dnsPorts === undefined ? {} : { dns: sandbox.dnsPorts }),
  };
}

export function sandboxTraces(sandbox: SandboxRecord, networkOf: NetworkOf): SandboxTraces {
  return {
    containerId: sandbox.containerId,
    hostNames: sandbox.endpoints.map((endpoint) => endpoint.hostInterfaceName).filter((name) => name !== ''),
    upperNames: candidatesOf(sandbox, networkOf).flatMap(({ endpoint, network }) =>
      network.parent === undefined ? [] : [endpoint.interfaceName],
    ),
    publications: publicationsOf(sandbox.ports, candidatesOf(sandbox, networkOf)),
    addresses: sandbox.endpoints.flatMap(addressesOfEndpoint),
  };
}

/** What the firewall does about published ports. What it cannot express (::1, one family to the other) is relayed. */
export function publicationsOf(ports: readonly PortRecord[], candidates: readonly Candidate[]): Publication[] {
  const publishers = choosePublishers(candidates);
  return ports.flatMap(({ protocol, hostIp, hostPort, containerPort }) => {
    const isV6 = familyOf(hostIp) === 6;
    const publisher = isV6 ? publishers.ipv6 : publishers.ipv4;
    if (publisher === undefined || hostIp === '::1') return [];
    const { endpoint, network } = publisher;
    const trustedInterfaces = network.bridge?.trustedHostInterfaces;
    return [
      {
        protocol,
        hostAddress: hostIp,
        hostPort,
        targetAddress: isV6 ? endpoint.ipv6Address : endpoint.ipv4Address,
        targetPort: containerPort,
        ...(trustedInterfaces === undefined ? {} : { trustedInterfaces }),
      },
    ];
  });
}

function addressesWithPrefix(endpoint: EndpointRecord): AddressWithPrefix[] {
  const { ipv4Address, ipv4PrefixLength, ipv6Address, ipv6PrefixLength, linkLocalIps = [] } = endpoint;
  return [
    ...(ipv4Address === '' ? [] : [{ address: ipv4Address, prefixLength: ipv4PrefixLength }]),
    ...(ipv6Address === '' ? [] : [{ address: ipv6Address, prefixLength: ipv6PrefixLength }]),
    ...linkLocalIps.map((address) => ({ address, prefixLength: familyOf(address) === 6 ? 64 : 16 })),
  ];
}
