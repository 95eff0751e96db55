import { invalidArgument } from '@flotilla/errors';
import { addressNumber, familyOf } from '@flotilla/netlink';
import type { network } from '@flotilla/proto';
import {
  cidrText,
  containsAddress,
  containsCidr,
  firstAddress,
  lastAddress,
  networkOf,
  overlaps,
  parseCidr,
  sizeOf,
} from '../addresses/cidr.js';
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
    ...subnetFaults(subnet),
    ...reservedFaults(pool, subnet),
    ...rangeFaults(pool.ipRange, subnet),
    ...addressFaults('gateway', pool.gateway, subnet),
    ...Object.values(pool.auxiliaryAddresses).flatMap((address) => addressFaults('auxiliary address', address, subnet)),
  ];
}

const linkLocal: Cidr = { family: 6, address: 0xfe80n << 112n, prefixLength: 64 };
const multicasts: readonly Cidr[] = [
  { family: 6, address: 0xffn << 120n, prefixLength: 8 },
  { family: 4, address: 0xe0n << 24n, prefixLength: 4 },
];
/** On a bridge it would take the host's own loopback traffic. */
const loopback: Cidr = { family: 4, address: 0x7fn << 24n, prefixLength: 8 };
const mapped: Cidr = { family: 6, address: 0xffffn << 32n, prefixLength: 96 };

/** Blocks that no network can be made of. */
function subnetFaults(subnet: Cidr): string[] {
  const text = cidrText(subnet);
  if (subnet.prefixLength === 0) return [`ipv${subnet.family} pool is empty`];
  if (overlaps(subnet, loopback)) return [`loopback subnet '${text}' is not allowed`];
  if (multicasts.some((block) => overlaps(subnet, block))) return [`multicast subnet '${text}' is not allowed`];
  if (overlaps(subnet, mapped)) return [`'${text}' is not a valid IPv6 subnet`];
  if (overlaps(subnet, linkLocal) && text !== cidrText(linkLocal))
    return [`'${text}' clashes with the Link-Local prefix 'fe80::/64'`];
  return [];
}

/** Gateway and auxiliary addresses, each asked for once, and none of those that mean the subnet itself. */
function reservedFaults({ gateway, auxiliaryAddresses }: network.IpamPool, subnet: Cidr): string[] {
  const taken = new Set<bigint>();
  if (sizeOf(subnet) > 2n) {
    taken.add(firstAddress(subnet));
    if (subnet.family === 4) taken.add(lastAddress(subnet));
  }
  const claim = (address: string, what: string): string[] => {
    if (familyOf(address) !== subnet.family) return []; // told by `addressFaults`
    const value = addressNumber(address);
    if (taken.has(value)) return [`failed to allocate ${what}: Address already in use`];
    taken.add(value);
    return [];
  };
  return [
    ...claim(gateway, `gateway (${gateway})`),
    ...Object.entries(auxiliaryAddresses).flatMap(([name, address]) =>
      claim(address, `secondary ip address (${name}:${address})`),
    ),
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
