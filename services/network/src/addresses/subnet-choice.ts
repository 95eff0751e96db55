import { createHash } from 'node:crypto';
import type { Cidr } from './cidr.js';
import { bitsOf, firstAddress, lastAddress, overlaps, sizeOf } from './cidr.js';

/** Subnets of `size` bits are cut from `base`. */
export interface DefaultPool {
  base: Cidr;
  size: number;
}

/** The first subnet of the pools that overlaps none of `taken`; undefined when they are used up. */
export function chooseSubnet(pools: readonly DefaultPool[], taken: readonly Cidr[]): Cidr | undefined {
  for (const { base, size } of pools) {
    const end = lastAddress(base);
    let address = firstAddress(base);
    while (address <= end) {
      const candidate: Cidr = { family: base.family, address, prefixLength: size };
      const inTheWay = taken.filter((other) => overlaps(other, candidate));
      if (inTheWay.length === 0) return candidate;
      // Jump behind all that is in the way: pools may hold very many subnets.
      const furthest = inTheWay.map(lastAddress).reduce((a, b) => (a > b ? a : b));
      const step = sizeOf(candidate);
      const next = furthest < lastAddress(candidate) ? lastAddress(candidate) + 1n : furthest + 1n;
      address = ((next + step - 1n) / step) * step;
    }
  }
  return undefined;
}

/** A unique local prefix (RFC 4193) of this engine's own, cut into /64s. */
export function defaultIpv6Pool(engineId: string): DefaultPool {
  const globalId = createHash('sha256').update(engineId).digest().readUIntBE(0, 5);
  const address = (0xfdn << 120n) | (BigInt(globalId) << 80n);
  return { base: { family: 6, address, prefixLength: 48 }, size: Math.min(64, bitsOf(6)) };
}
