import { containsAddress, parseCidr } from '../addresses/cidr.js';
import type { NetworkRecord } from '../store/records.js';

/** Names of auxiliary addresses by which the bridge driver knows a router that is not the bridge itself. */
export const defaultGatewayKeys = { 4: 'DefaultGatewayIPv4', 6: 'DefaultGatewayIPv6' } as const;

/** Where containers with this address find the way outside; empty when the network's subnet names nobody. */
export function gatewayFor(address: string, { bridge, ipam }: NetworkRecord): string {
  for (const { subnet, gateway, auxiliaryAddresses } of ipam.pools) {
    const block = parseCidr(subnet);
    if (block === undefined || !containsAddress(block, address)) continue;
    const other = bridge === undefined ? undefined : auxiliaryAddresses[defaultGatewayKeys[block.family]];
    return other ?? gateway;
  }
  return '';
}
