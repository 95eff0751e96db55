import type { AddressWithPrefix, BridgeSpec } from '../kernel/kernel-operations.js';
import { parseCidr } from '../addresses/cidr.js';
import type { NetworkRecord } from '../store/records.js';

/** What the kernel needs to know of a network of driver bridge; undefined for other drivers. */
export function bridgeSpec(record: NetworkRecord): BridgeSpec | undefined {
  const { bridge } = record;
  if (bridge === undefined) return undefined;
  return {
    name: bridge.name,
    mac: bridge.mac,
    mtu: bridge.mtu,
    addresses: gatewayAddresses(record),
    isInternal: record.internal,
    areNeighboursAllowed: bridge.areNeighboursAllowed,
    isMasquerading: bridge.isMasquerading && !record.internal,
  };
}

function gatewayAddresses(record: NetworkRecord): AddressWithPrefix[] {
  return record.ipam.pools.flatMap(({ gateway, subnet }) => {
    const cidr = parseCidr(subnet);
    return gateway === '' || cidr === undefined ? [] : [{ address: gateway, prefixLength: cidr.prefixLength }];
  });
}
