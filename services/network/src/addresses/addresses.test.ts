import { defaultIpv4Pools } from '@flotilla/config';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { AddressPool, NetworkAddresses } from './address-pool.js';
import { cidrText, containsAddress, firstAddress, lastAddress, networkOf, overlaps, parseCidr } from './cidr.js';
import type { Cidr } from './cidr.js';
import { macForAddress } from './mac-address.js';
import { chooseSubnet, defaultIpv6Pool } from './subnet-choice.js';

const cidr = (text: string): Cidr => {
  const parsed = parseCidr(text);
  if (parsed === undefined) throw new Error(text);
  return parsed;
};
const pool = (subnet: string, more = {}) =>
  new AddressPool({ subnet, ipRange: '', gateway: '', auxiliaryAddresses: {}, ...more });

describe('cidr', () => {
  it('reads and writes', () => {
    expect(cidrText(networkOf(cidr('10.1.2.3/16')))).toBe('10.1.0.0/16');
    expect(cidrText(networkOf(cidr('fd00::5/64')))).toBe('fd00::/64');
    for (const bad of ['', '10.0.0.0', '10.0.0.0/33', '10.0.0.0/-1', '10.0.0.0/8/8', 'x/8', 'fd00::/129', '1.2.3/8']) {
      expect(parseCidr(bad)).toBeUndefined();
    }
  });

  it('compares', () => {
    expect(overlaps(cidr('10.0.0.0/8'), cidr('10.9.0.0/16'))).toBe(true);
    expect(overlaps(cidr('10.0.0.0/16'), cidr('10.1.0.0/16'))).toBe(false);
    expect(overlaps(cidr('0.0.0.0/0'), cidr('::/0'))).toBe(false);
    expect(containsAddress(cidr('10.0.0.0/24'), '10.0.0.255')).toBe(true);
    expect(containsAddress(cidr('10.0.0.0/24'), 'fd00::1')).toBe(false);
  });
});

describe('chooseSubnet', () => {
  const pools = defaultIpv4Pools.map(({ base, size }) => ({ base: cidr(base), size }));

  it('takes the first that is free, then the next pool', () => {
    const taken: Cidr[] = [];
    const chosen = Array.from({ length: 31 }, () => {
      const subnet = chooseSubnet(pools, taken);
      if (subnet !== undefined) taken.push(subnet);
      return subnet === undefined ? 'none' : cidrText(subnet);
    });
    expect(chosen.slice(0, 3)).toEqual(['172.17.0.0/16', '172.18.0.0/16', '172.19.0.0/16']);
    expect(chosen[14]).toBe('172.31.0.0/16');
    expect(chosen[15]).toBe('192.168.0.0/20');
    expect(chosen[30]).toBe('192.168.240.0/20');
    expect(chooseSubnet(pools, taken)).toBeUndefined();
  });

  it('skips what the host routes', () => {
    expect(chooseSubnet(pools, [cidr('172.16.0.0/12')])).toEqual(cidr('192.168.0.0/20'));
    expect(chooseSubnet(pools, [cidr('172.17.5.0/24')])).toEqual(cidr('172.18.0.0/16'));
  });

  it('never overlaps what is taken', () => {
    const small = [{ base: cidr('10.0.0.0/20'), size: 24 }];
    const block = fc.record({ at: fc.integer({ min: 0, max: 4095 }), prefix: fc.integer({ min: 20, max: 32 }) });
    fc.assert(
      fc.property(fc.array(block, { maxLength: 12 }), (blocks) => {
        const taken = blocks.map(({ at, prefix }) =>
          networkOf({ family: 4, address: 0x0a000000n + BigInt(at), prefixLength: prefix }),
        );
        const all = Array.from({ length: 16 }, (_, index) => cidr(`10.0.${index}.0/24`));
        const expected = all.find((candidate) => !taken.some((other) => overlaps(other, candidate)));
        expect(chooseSubnet(small, taken)).toEqual(expected);
      }),
    );
  });

  it('gives each engine a unique local prefix', () => {
    const own = defaultIpv6Pool('engine');
    expect(cidrText(own.base)).toMatch(/^fd[0-9a-f:]+::\/48$/);
    expect(own).not.toEqual(defaultIpv6Pool('other'));
    expect(chooseSubnet([own], [])?.prefixLength).toBe(64);
  });
});

describe('AddressPool', () => {
  it('hands out the lowest free address', () => {
    const addresses = pool('10.0.0.0/29', { gateway: '10.0.0.1', auxiliaryAddresses: { router: '10.0.0.3' } });
    expect([1, 2, 3, 4, 5].map(() => addresses.allocate())).toEqual([
      '10.0.0.2',
      '10.0.0.4',
      '10.0.0.5',
      '10.0.0.6',
      undefined,
    ]);
    addresses.release('10.0.0.4');
    addresses.release('10.0.0.2');
    expect(addresses.allocate()).toBe('10.0.0.2');
    expect(() => addresses.reserve('10.0.0.2')).toThrow('Address already in use');
  });

  it('keeps to its range, and lets fixed addresses out of it', () => {
    const addresses = pool('10.0.0.0/24', { ipRange: '10.0.0.128/30', gateway: '10.0.0.1' });
    expect(addresses.allocate()).toBe('10.0.0.128');
    addresses.reserve('10.0.0.9');
    addresses.release('10.0.0.9');
    expect(addresses.allocate()).toBe('10.0.0.129');
  });

  it('never hands out one address twice', () => {
    fc.assert(
      fc.property(fc.array(fc.boolean(), { maxLength: 60 }), (steps) => {
        const addresses = pool('10.0.0.0/28');
        const used = new Set<string>();
        for (const isTaking of steps) {
          const [any] = used;
          if (isTaking) {
            const address = addresses.allocate();
            expect(address === undefined ? used.size : used.has(address)).toBe(address === undefined ? 14 : false);
            if (address !== undefined) used.add(address);
          } else if (any !== undefined) {
            used.delete(any);
            addresses.release(any);
          }
        }
      }),
    );
  });

  it('says when a network is full', () => {
    const network = new NetworkAddresses('tiny', [
      { subnet: '10.0.0.0/30', ipRange: '', gateway: '10.0.0.1', auxiliaryAddresses: {} },
    ]);
    expect(network.take(4, '')).toEqual({ address: '10.0.0.2', prefixLength: 30 });
    expect(() => network.take(4, '')).toThrow("no available IPv4 addresses on this network's address pools: tiny");
    expect(() => network.take(4, '10.1.0.1')).toThrow('no configured subnet contains IP address 10.1.0.1');
  });

  it('covers whole subnets', () => {
    expect(lastAddress(cidr('10.0.0.0/24')) - firstAddress(cidr('10.0.0.0/24'))).toBe(255n);
    expect(pool('fd00::/64').allocate()).toBe('fd00::1');
  });
});

it('derives MAC addresses from IPv4 addresses', () => {
  expect(macForAddress('172.17.0.2')).toBe('02:42:ac:11:00:02');
  expect(macForAddress('')).toMatch(/^02:42(:[0-9a-f]{2}){4}$/);
});
