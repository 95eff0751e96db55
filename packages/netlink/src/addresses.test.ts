import { describe, expect, it } from 'vitest';
import { addressBytes, addressNumber, addressText, familyOf, macBytes, macText, numberAddress } from './addresses.js';

describe('addresses', () => {
  it.each([
    ['0.0.0.0', '0.0.0.0'],
    ['172.17.0.2', '172.17.0.2'],
    ['::', '::'],
    ['::1', '::1'],
    ['fd00:0:0:1::0:5', 'fd00:0:0:1::5'],
    ['2001:db8:0:0:1:0:0:1', '2001:db8::1:0:0:1'],
    ['::ffff:10.0.0.1', '::ffff:a00:1'],
    ['1:0:2:0:3:0:4:0', '1:0:2:0:3:0:4:0'],
  ])('%s reads back as %s', (given, canonical) => {
    expect(addressText(addressBytes(given))).toBe(canonical);
  });

  it('counts', () => {
    expect(addressNumber('10.0.0.1')).toBe(0x0a000001n);
    expect(numberAddress(0x0a0000ffn, 4)).toBe('10.0.0.255');
    expect(numberAddress(addressNumber('fd00::') + 2n, 6)).toBe('fd00::2');
  });

  it('refuses what is none', () => {
    for (const bad of ['', '1.2.3', '300.1.1.1', 'fe80::1%eth0', 'host', '1.2.3.4/8']) {
      expect(familyOf(bad)).toBeUndefined();
      expect(() => addressBytes(bad)).toThrow(RangeError);
    }
    expect(() => macBytes('02:42')).toThrow(RangeError);
  });

  it('writes MAC addresses in lower case', () => {
    expect(macText(macBytes('02:42:AC:11:00:02'))).toBe('02:42:ac:11:00:02');
  });
});
