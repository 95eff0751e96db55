import type { DefaultPool } from './addresses/subnet-choice.js';
import type { Cidr } from './addresses/cidr.js';

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
  isFirewallOn: boolean;
  isForwardingOn: boolean;
  isIpv6OnDefaultBridge: boolean;
  fixedCidrV6?: Cidr;
  dns: string[];
  dnsSearch: string[];
  dnsOptions: string[];
  /** What host-gateway means; the default bridge's gateways when empty. */
  hostGatewayIps: string[];
  /** The host's resolver file. */
  resolvConfPath: string;
}
