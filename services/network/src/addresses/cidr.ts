import { addressNumber, familyOf, numberAddress } from '@flotilla/netlink';
import type { Family } from '@flotilla/netlink';

/** A block of addresses. */
export interface Cidr {
  family: Family;
  /** The address as written, host bits included. */
  address: bigint;
  prefixLength: number;
}

/** `address/length`; undefined when it is no such text. */
export function parseCidr(text: string): Cidr | undefined {
  const [address, length, ...rest] = text.split('/');
  if (address === undefined || length === undefined || rest.length > 0 || !/^\d{1,3}$/.test(length)) return undefined;
  const family = familyOf(address);
  if (family === undefined || Number(length) > bitsOf(family)) return undefined;
  return { family, address: addressNumber(address), prefixLength: Number(length) };
}

export function bitsOf(family: Family): number {
  return family === 4 ? 32 : 128;
}

export function sizeOf({ family, prefixLength }: Cidr): bigint {
  return 1n << BigInt(bitsOf(family) - prefixLength);
}

export function firstAddress(cidr: Cidr): bigint {
  return cidr.address & ~(sizeOf(cidr) - 1n);
}

export function lastAddress(cidr: Cidr): bigint {
  return firstAddress(cidr) + sizeOf(cidr) - 1n;
}

/** The block without host bits. */
export function networkOf(cidr: Cidr): Cidr {
  return { ...cidr, address: firstAddress(cidr) };
}

export function cidrText(cidr: Cidr): string {
  return `${numberAddress(cidr.address, cidr.family)}/${cidr.prefixLength}`;
}

export function overlaps(a: Cidr, b: Cidr): boolean {
  return a.family === b.family && firstAddress(a) <= lastAddress(b) && firstAddress(b) <= lastAddress(a);
}

export function containsAddress(cidr: Cidr, address: string): boolean {
  if (familyOf(address) !== cidr.family) return false;
  const value = addressNumber(address);
  return firstAddress(cidr) <= value && value <= lastAddress(cidr);
}

export function containsCidr(outer: Cidr, inner: Cidr): boolean {
  return (
    outer.family === inner.family &&
    firstAddress(outer) <= firstAddress(inner) &&
    lastAddress(inner) <= lastAddress(outer)
  );
}
