import type { IpvlanFlag, IpvlanMode, MacvlanMode } from '@flotilla/netlink';

/** Protocols that can be published. */
export type Protocol = 'tcp' | 'udp';

export type NetworkDriver = 'bridge' | 'host' | 'null' | 'macvlan' | 'ipvlan';

/** One subnet of a network. Empty strings are what was not given and not needed. */
export interface PoolRecord {
  subnet: string;
  ipRange: string;
  gateway: string;
  auxiliaryAddresses: Record<string, string>;
}

/** The bridge of a network of driver bridge. */
export interface BridgeRecord {
  name: string;
  mac: string;
  mtu: number;
  areNeighboursAllowed: boolean;
  isMasquerading: boolean;
  /** Host address for ports published without one; empty for the engine's default. */
  hostBindingIpv4: string;
  interfacePrefix: string;
  /** How its subnets are reached from outside; absent: nat. */
  gatewayModeIpv4?: GatewayMode;
  gatewayModeIpv6?: GatewayMode;
  /** What containers leave under, instead of the address that the way outside has. */
  hostIpv4?: string;
  hostIpv6?: string;
  /** The bridge does not get the gateway's IPv4 address. */
  hasNoIpv4OnBridge?: true;
  /** Interfaces over which published ports are reached under the containers' own addresses too. */
  trustedHostInterfaces?: string[];
}

/** `nat-unprotected`: every port is reached from outside; `routed`: no translation; `isolated`: not even the host. */
export type GatewayMode = 'nat' | 'nat-unprotected' | 'routed' | 'isolated';

/** The host's link that a network of driver macvlan or ipvlan sits on. */
export type ParentRecord = {
  name: string;
  /** None was given: a dummy of ours, which leads nowhere. */
  isMadeOfNothing: boolean;
} & ({ kind: 'macvlan'; mode: MacvlanMode } | { kind: 'ipvlan'; mode: IpvlanMode; flag: IpvlanFlag });

export interface NetworkRecord {
  id: string;
  name: string;
  /** Nanoseconds since the epoch, in decimal. */
  createdAtNs: string;
  driver: NetworkDriver;
  scope: string;
  internal: boolean;
  attachable: boolean;
  ingress: boolean;
  enableIpv4: boolean;
  enableIpv6: boolean;
  ipam: { driver: string; options: Record<string, string>; pools: PoolRecord[] };
  options: Record<string, string>;
  labels: Record<string, string>;
  configOnly: boolean;
  configFrom: string;
  /** bridge, host or none, made by the engine. */
  predefined: boolean;
  /** Fixed addresses may be asked for only where the user chose the subnet. */
  hasUserSubnet: boolean;
  bridge?: BridgeRecord;
  parent?: ParentRecord;
}

/** A container's place in a network. Empty strings and 0 where a family is not used. */
export interface EndpointRecord {
  id: string;
  networkId: string;
  macAddress: string;
  ipv4Address: string;
  ipv4PrefixLength: number;
  gateway: string;
  ipv6Address: string;
  ipv6PrefixLength: number;
  ipv6Gateway: string;
  /** Addresses beside the network's own, which the container asked for; nobody else has to know of them. */
  linkLocalIps?: string[];
  aliases: string[];
  dnsNames: string[];
  links: string[];
  driverOptions: Record<string, string>;
  gatewayPriority: number;
  interfaceName: string;
  /** Interface on the host's side; empty where there is none. */
  hostInterfaceName: string;
}

/** A published port, one per host address. */
export interface PortRecord {
  protocol: Protocol;
  containerPort: number;
  hostIp: string;
  hostPort: number;
}

export interface SandboxRecord {
  containerId: string;
  containerName: string;
  hostname: string;
  domainName: string;
  isHostMode: boolean;
  /** IPv6 is switched off inside: the endpoints get no addresses of it. */
  hasNoIpv6?: true;
  endpoints: EndpointRecord[];
  ports: PortRecord[];
  /** Of 127.0.0.11, once known; absent while the sandbox needs none. */
  dnsPorts?: { udp: number; tcp: number };
  dnsServers: string[];
  dnsSearch: string[];
  dnsOptions: string[];
  extraHosts: string[];
  /** Tells whether a repeated request asks for the same. */
  requestHash: string;
  /** Milliseconds since the epoch. */
  preparedAtMs: number;
}
