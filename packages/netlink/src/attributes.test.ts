import { describe, expect, it } from 'vitest';
import { attribute, decodeAttributes, decodeNested, nested, readText, text, uint32 } from './attributes.js';
import { decodeMessages, encodeMessage, stampSequence } from './message.js';

describe('netlink encoding', () => {
  it('pads attributes to four bytes and nests them', () => {
    const bytes = nested(18, attribute(1, text('veth')), attribute(2, uint32(7)));
    expect(bytes.length % 4).toBe(0);
    const inner = decodeNested(decodeAttributes(bytes), 18);
    expect(readText(inner.get(1))).toBe('veth');
    expect(inner.get(2)?.readUInt32LE(0)).toBe(7);
  });

  it('stops at a list cut short', () => {
    const whole = Buffer.concat([attribute(1, uint32(1)), attribute(2, uint32(2))]);
    expect([...decodeAttributes(whole.subarray(0, 12)).keys()]).toEqual([1]);
    expect(decodeAttributes(Buffer.alloc(3)).size).toBe(0);
    expect(decodeAttributes(Buffer.alloc(8)).size).toBe(0);
  });

  it('frames messages', () => {
    const message = encodeMessage(16, 4, Buffer.from([1, 2, 3, 4, 5]));
    stampSequence(message, 9);
    const decoded = [...decodeMessages(Buffer.concat([message, message]))];
    expect(decoded).toHaveLength(2);
    expect(decoded[0]).toMatchObject({ type: 16, flags: 5, sequence: 9, body: Buffer.from([1, 2, 3, 4, 5]) });
  });
});
