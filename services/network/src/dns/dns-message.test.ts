import * as packet from 'dns-packet';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  MalformedQuery,
  addressAnswer,
  emptyAnswer,
  parseQuestion,
  pointerAnswer,
  recordTypes,
  reverseName,
} from './dns-message.js';

const query = (name: string, type: 'A' | 'AAAA' | 'PTR' = 'A', more: Partial<packet.Packet> = {}): Buffer =>
  packet.encode({
    type: 'query',
    id: 77,
    flags: packet.RECURSION_DESIRED,
    questions: [{ name, type, class: 'IN' }],
    ...more,
  });

describe('parseQuestion', () => {
  it('reads the question', () => {
    const asked = query('Web.Example');
    expect(parseQuestion(asked)).toEqual({
      name: 'web.example',
      type: recordTypes.a,
      class: 1,
      end: asked.length,
      messageEnd: asked.length,
      udpSize: 512,
      hasEdns: false,
    });
  });

  it('reads the size that EDNS announces', () => {
    const asked = query('web', 'A', {
      additionals: [
        {
          type: 'OPT',
          name: '.',
          udpPayloadSize: 1232,
          extendedRcode: 0,
          ednsVersion: 0,
          flags: 0,
          flag_do: false,
          options: [],
        },
      ],
    });
    expect(parseQuestion(asked)).toMatchObject({ udpSize: 1232, hasEdns: true });
    const many = Array.from({ length: 90 }, (_, index) => `10.0.0.${index}`);
    const bytes = addressAnswer(asked, parseQuestion(asked), many, 600, 1232);
    expect(bytes.length).toBeLessThanOrEqual(1232);
    expect(packet.decode(bytes)).toMatchObject({ flag_tc: true, additionals: [{ type: 'OPT', udpPayloadSize: 4096 }] });
  });

  it('refuses what is no query, without ever failing otherwise', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 80 }), (bytes) => {
        try {
          parseQuestion(Buffer.from(bytes));
        } catch (error) {
          expect(error).toBeInstanceOf(MalformedQuery);
        }
      }),
    );
    const pointing = Buffer.concat([query('web').subarray(0, 12), Buffer.from([0xc0, 0x0c, 0, 1, 0, 1])]);
    expect(() => parseQuestion(pointing)).toThrow('bad name');
    const signed = query('web', 'A', { additionals: [{ type: 'TXT', name: 'a.b', data: 'x' }] });
    expect(parseQuestion(Buffer.concat([signed, Buffer.from('more')])).messageEnd).toBe(signed.length);
    for (let cut = query('web').length; cut < signed.length; cut++)
      expect(() => parseQuestion(signed.subarray(0, cut))).toThrow(MalformedQuery);
    signed.writeUInt16BE(9, 10);
    expect(() => parseQuestion(signed)).toThrow('too many records');
    const answer = query('web');
    answer.writeUInt8(0x80, 2);
    expect(() => parseQuestion(answer)).toThrow('a response');
  });
});

describe('answers', () => {
  it('carry addresses of both families', () => {
    const asked = query('web');
    const answer = packet.decode(addressAnswer(asked, parseQuestion(asked), ['10.0.0.2', '10.0.0.3'], 600, 512));
    expect(answer).toMatchObject({ id: 77, type: 'response', flag_rd: true, flag_ra: true, rcode: 'NOERROR' });
    expect(answer.answers?.map((record) => 'data' in record && record.data)).toEqual(['10.0.0.2', '10.0.0.3']);
    const six = query('web', 'AAAA');
    const records = packet.decode(addressAnswer(six, parseQuestion(six), ['fd00::2'], 600, 512)).answers;
    expect(records).toMatchObject([{ name: 'web', type: 'AAAA', ttl: 600, data: 'fd00::2' }]);
  });

  it('are cut and marked when they do not fit', () => {
    const asked = query('web');
    const many = Array.from({ length: 60 }, (_, index) => `10.0.0.${index}`);
    const bytes = addressAnswer(asked, parseQuestion(asked), many, 600, 512);
    expect(bytes.length).toBeLessThanOrEqual(512);
    expect(packet.decode(bytes)).toMatchObject({ flag_tc: true });
    expect(packet.decode(addressAnswer(asked, parseQuestion(asked), many, 600, 65535)).answers).toHaveLength(60);
  });

  it('name the bearer of an address', () => {
    const asked = query('2.0.0.10.in-addr.arpa', 'PTR');
    expect(packet.decode(pointerAnswer(asked, parseQuestion(asked), 'web.app', 600)).answers).toMatchObject([
      { data: 'web.app' },
    ]);
    const tooLong = pointerAnswer(asked, parseQuestion(asked), `${'w'.repeat(64)}.app`, 600);
    expect(packet.decode(tooLong)).toMatchObject({ rcode: 'NOERROR', answers: [] });
    expect(packet.decode(emptyAnswer(asked, parseQuestion(asked), 2))).toMatchObject({
      rcode: 'SERVFAIL',
      questions: [{ type: 'PTR' }],
    });
  });

  it('understand reverse names', () => {
    expect(reverseName('2.0.0.10.in-addr.arpa')).toBe('10.0.0.2');
    expect(reverseName(`${'0.'.repeat(31)}1.ip6.arpa`)).toBe('1000:0000:0000:0000:0000:0000:0000:0000');
    expect(reverseName('web.in-addr.arpa')).toBeUndefined();
  });
});
