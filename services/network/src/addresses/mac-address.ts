import { randomBytes } from 'node:crypto';
import { addressBytes, macText } from '@flotilla/netlink';

/** 02:42 and the IPv4 address, so that a reused address is reachable at once; random for IPv6 alone. */
export function macForAddress(ipv4Address: string): string {
  const tail = ipv4Address === '' ? randomBytes(4) : addressBytes(ipv4Address);
  return macText(Buffer.concat([Buffer.from([0x02, 0x42]), tail]));
}
