import { invalidArgument } from '@flotilla/errors';
import { familyOf } from '@flotilla/netlink';
import type { network } from '@flotilla/proto';
import { cidrText, containsAddress, containsCidr, networkOf, overlaps, parseCidr } from '../addresses/cidr.js';
import type { Cidr } from '../addresses/cidr.js';

/**
 * Check the pools that a user gives for a network; all faults in one message, as dockerd writes them.
 *
 * @throws EngineError `invalidArgument`
 */
export function validatePools(pools: readonly network.IpamPool[], families: { ipv4: boolean; ipv6: boolean }): void {
  const faults = pools.flatMap((pool) => poolFaults(pool, families));
  const subnets = pools.flatMap((pool) => parseCidr(pool.subnet) ?? []);
  subnets.forEach((subnet, index) => {
    if (subnets.slice(0, index).some((other) => overlaps(subnet, other))) {
      faults.push(`invalid subnet ${cidrText(subnet)}: it overlaps another subnet of the network`);
    }
  });
  if (faults.length > 0) throw invalidArgument(`invalid network config:\n${faults.join('\n')}`);
}

function poolFaults(pool: network.IpamPool, families: { ipv4: boolean; ipv6: boolean }): string[] {
  if (pool.subnet === '') {
    const needsSubnet = pool.ipRange !== '' || pool.gateway !== '' || Object.keys(pool.auxiliaryAddresses).length > 0;
    return needsSubnet
      ? ['invalid IPAM config: a subnet is needed for an ip-range, a gateway or auxiliary addresses']
      : [];
  }
  const subnet = parseCidr(pool.subnet);
  if (subnet === undefined) return [`invalid subnet ${pool.subnet}: invalid CIDR block notation`];
  if (cidrText(subnet) !== cidrText(networkOf(subnet))) {
    return [`invalid subnet ${pool.subnet}: it should be ${cidrText(networkOf(subnet))}`];
  }
  if (subnet.family === 4 && !families.ipv4)
    return [`invalid subnet ${pool.subnet}: IPv4 has not been enabled for this network`];
  if (subnet.family === 6 && !families.ipv6)
    return [`invalid subnet ${pool.subnet}: IPv6 has not been enabled for this network`];
  return [
    ...rangeFaults(pool.ipRange, subnet),
    ...addressFaults('gateway', pool.gateway, subnet),
    ...Object.values(pool.auxiliaryAddresses).flatMap((address) => addressFaults('auxiliary address', address, subnet)),
  ];
}

function rangeFaults(text: string, subnet: Cidr): string[] {
  if (text === '') return [];
  const range = parseCidr(text);
  if (range === undefined) return [`invalid ip-range ${text}: invalid CIDR block notation`];
  if (range.family !== subnet.family)
    return [`invalid ip-range ${text}: parent subnet is an IPv${subnet.family} block`];
  if (cidrText(range) !== cidrText(networkOf(range))) {
    return [`invalid ip-range ${text}: it should be ${cidrText(networkOf(range))}`];
  }
  if (!containsCidr(subnet, range))
    return [`invalid ip-range ${text}: parent subnet ${cidrText(subnet)} doesn't contain ip-range`];
  return [];
}

function addressFaults(what: string, address: string, subnet: Cidr): string[] {
  if (address === '' && what === 'gateway') return [];
  const family = familyOf(address);
  if (family === undefined) return [`invalid ${what} ${address}: invalid address`];
  if (family !== subnet.family) return [`invalid ${what} ${address}: parent subnet is an IPv${subnet.family} block`];
  if (!containsAddress(subnet, address)) {
    return [`invalid ${what} ${address}: parent subnet ${cidrText(subnet)} doesn't contain this address`];
  }
  return [];
}
