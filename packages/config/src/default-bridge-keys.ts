import { BlockList } from 'node:net';
import { invalidArgument } from '@flotilla/errors';
import type { DaemonFile } from './daemon-keys.js';

/**
 * Check the keys about the default bridge against each other, as far as they name its subnet; where they leave it open
 * the network service checks them when it knows.
 *
 * @throws EngineError `invalidArgument` naming the key
 */
export function checkDefaultBridge(given: DaemonFile): void {
  checkFamily('ipv4', '', given.bip, given['fixed-cidr'], given['default-gateway']);
  checkFamily('ipv6', '-v6', given.bip6, given['fixed-cidr-v6'], given['default-gateway-v6']);
}

function checkFamily(
  family: 'ipv4' | 'ipv6',
  suffix: string,
  own: string | undefined,
  range: string | undefined,
  gateway: string | undefined,
): void {
  if (own === undefined) return;
  const [address = '', length] = own.split('/');
  const subnet = new BlockList();
  subnet.addSubnet(address, Number(length), family);
  const [first = '', rangeLength] = (range ?? own).split('/');
  if (!subnet.check(first, family) || Number(rangeLength) < Number(length))
    throw invalidArgument(`fixed-cidr${suffix}: ${range ?? ''} is not part of the bridge's subnet, ${own}`);
  if (gateway !== undefined && !subnet.check(gateway, family))
    throw invalidArgument(`default-gateway${suffix}: ${gateway} is not part of the bridge's subnet, ${own}`);
}
