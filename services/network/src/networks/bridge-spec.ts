import type { AddressWithPrefix, BridgeFamily, BridgeSpec } from '../kernel/kernel-operations.js';
import { parseCidr } from '../addresses/cidr.js';
import type { BridgeRecord, GatewayMode, NetworkRecord } from '../store/records.js';

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
    ipv4: familySpec(record, bridge, bridge.gatewayModeIpv4, bridge.hostIpv4),
    ipv6: familySpec(record, bridge, bridge.gatewayModeIpv6, bridge.hostIpv6),
  };
}

function familySpec(
  { internal }: NetworkRecord,
  { isMasquerading }: BridgeRecord,
  mode: GatewayMode = 'nat',
  hostAddress: string | undefined,
): BridgeFamily {
  const isTranslated = isMasquerading && !internal && mode !== 'routed';
  return {
    ...(isTranslated ? { source: hostAddress === undefined ? 'masquerade' : { address: hostAddress } } : {}),
    isUnprotected: mode === 'nat-unprotected' && !internal,
    isRouted: mode === 'routed' && !internal,
  };
}

function gatewayAddresses(record: NetworkRecord): AddressWithPrefix[] {
  return record.ipam.pools.flatMap(({ gateway, subnet }) => {
    const cidr = parseCidr(subnet);
    const isInhibited = cidr?.family === 4 && record.bridge?.hasNoIpv4OnBridge === true;
    return gateway === '' || cidr === undefined || isInhibited
      ? []
      : [{ address: gateway, prefixLength: cidr.prefixLength }];
  });
}
