import { defaultIpv4Pools } from '@flotilla/config';
import type { NetworkConfig } from '@flotilla/config';
import { invalidArgument } from '@flotilla/errors';
import { familyOf } from '@flotilla/netlink';
import { bitsOf, parseCidr } from './addresses/cidr.js';
import type { Cidr } from './addresses/cidr.js';
import type { DefaultPool } from './addresses/subnet-choice.js';
import { isInterfaceName } from './networks/network-options.js';
import type { NetworkSettings } from './settings.js';

const defaultMtu = 1500;

/** @throws EngineError `invalidArgument` naming the key */
export function networkSettings({ engineId, network: block }: NetworkConfig): NetworkSettings {
  if (!isInterfaceName(block.bridge))
    throw invalidArgument(`network.bridge: ${JSON.stringify(block.bridge)} is not an interface name`);
  if (block.defaultHostIp !== '' && familyOf(block.defaultHostIp) === undefined) {
    throw invalidArgument(`network.defaultHostIp: ${JSON.stringify(block.defaultHostIp)} is not an address`);
  }
  const { bip, bip6, fixedCidr, fixedCidrV6 } = block;
  return {
    engineId,
    bridge: block.bridge,
    ...(bip === undefined ? {} : { bridgeAddress: cidrOf('bip', bip) }),
    ...(bip6 === undefined ? {} : { bridgeAddressV6: cidrOf('bip6', bip6) }),
    ...(fixedCidr === undefined ? {} : { fixedCidr: cidrOf('fixedCidr', fixedCidr) }),
    ...(fixedCidrV6 === undefined ? {} : { fixedCidrV6: cidrOf('fixedCidrV6', fixedCidrV6) }),
    pools: defaultPools(block.defaultAddressPools),
    mtu: block.mtu === 0 ? defaultMtu : block.mtu,
    defaultHostIp: block.defaultHostIp === '0.0.0.0' ? '' : block.defaultHostIp,
    areNeighboursAllowed: block.icc,
    isMasquerading: block.ipMasq,
    firewall: { ipv4: block.iptables, ipv6: block.ip6tables },
    isDirectRoutingAllowed: block.allowDirectRouting,
    ...(block.acceptedMark === undefined ? {} : { acceptedMark: block.acceptedMark }),
    ...(block.defaultGateway === undefined ? {} : { defaultGateway: block.defaultGateway }),
    ...(block.defaultGatewayV6 === undefined ? {} : { defaultGatewayV6: block.defaultGatewayV6 }),
    defaultNetworkOptions: block.defaultNetworkOptions,
    isForwardingOn: block.ipForward,
    isIpv6OnDefaultBridge: block.ipv6,
    dns: block.dns,
    dnsSearch: block.dnsSearch,
    dnsOptions: block.dnsOptions,
    hostGatewayIps: block.hostGatewayIps,
    resolvConfPath: block.resolvConfPath,
  };
}

/** Pools of one family leave the other as it is: IPv6 without any gets a prefix of the engine's own. */
function defaultPools(given: NetworkConfig['network']['defaultAddressPools']): DefaultPool[] {
  const pools = given.map(defaultPool);
  return pools.some(({ base }) => base.family === 4) ? pools : [...defaultIpv4Pools.map(defaultPool), ...pools];
}

function cidrOf(key: string, text: string): Cidr {
  const cidr = parseCidr(text);
  if (cidr === undefined)
    throw invalidArgument(`network.${key}: ${JSON.stringify(text)} is no address with a prefix length`);
  return cidr;
}

function defaultPool({ base, size }: { base: string; size: number }): DefaultPool {
  const cidr = cidrOf('defaultAddressPools', base);
  if (size < cidr.prefixLength || size > bitsOf(cidr.family)) {
    throw invalidArgument(`network.defaultAddressPools: subnets of size ${size} cannot be cut from ${base}`);
  }
  return { base: cidr, size };
}
