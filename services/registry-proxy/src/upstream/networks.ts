import { BlockList, isIP } from 'node:net';

/** Add a network in CIDR notation. @returns whether it was one */
export function addNetwork(networks: BlockList, cidr: string): boolean {
  const [address = '', bits = ''] = cidr.split('/');
  const family = isIP(address);
  if (family === 0 || !/^\d{1,3}$/.test(bits) || Number(bits) > (family === 6 ? 128 : 32)) return false;
  networks.addSubnet(address, Number(bits), family === 6 ? 'ipv6' : 'ipv4');
  return true;
}

/** Whether the text is an address of one of the networks; a name is not. */
export function isInside(networks: BlockList, address: string): boolean {
  const family = isIP(address);
  return family !== 0 && networks.check(address, family === 6 ? 'ipv6' : 'ipv4');
}
