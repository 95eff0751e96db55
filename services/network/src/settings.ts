import type { DefaultPool } from './addresses/subnet-choice.js';
import type { Cidr } from './addresses/cidr.js';

/** A packet's mark: `value` under `mask`. */
export interface FirewallMark {
  value: number;
  mask: number;
}

/** The network service's settings, checked and in the form that the domain uses. */
export interface NetworkSettings {
  engineId: string;
  /** Name of the default bridge; `none` for no default bridge. */
  bridge: string;
  /** Address and subnet of the default bridge, when the user chose it. */
  bridgeAddress?: Cidr;
  /** Range of container addresses on the default bridge. */
  fixedCidr?: Cidr;
  pools: DefaultPool[];
  mtu: number;
  /** Address for ports published without one. Empty: all IPv4 and IPv6 addresses. */
  defaultHostIp: string;
  areNeighboursAllowed: boolean;
  isMasquerading: boolean;
  /** Which families get firewall rules. */
  firewall: { ipv4: boolean; ipv6: boolean };
  isForwardingOn: boolean;
  isIpv6OnDefaultBridge: boolean;
  fixedCidrV6?: Cidr;
  bridgeAddressV6?: Cidr;
  /** Routers that containers of the default bridge use instead of the bridge. */
  defaultGateway?: string;
  defaultGatewayV6?: string;
  /** Options of networks that do not say otherwise, by driver. */
  defaultNetworkOptions: Record<string, Record<string, string>>;
  /** Published ports are reached under the containers' own addresses too. */
  isDirectRoutingAllowed: boolean;
  /** Packets with this mark get to containers whatever else is said. */
  acceptedMark?: FirewallMark;
  dns: string[];
  dnsSearch: string[];
  dnsOptions: string[];
  /** What host-gateway means; the default bridge's gateways when empty. */
  hostGatewayIps: string[];
  /** The host's resolver file. */
  resolvConfPath: string;
}
