import { encodeFrame, StdStream } from '@flotilla/docker-api';
import { describe, expect, it } from 'vitest';
import { OutputSkip, outputPositionText, parseOutputPosition } from './output-position.js';

const out = (text: string) => encodeFrame(StdStream.stdout, Buffer.from(text));
const err = (text: string) => encodeFrame(StdStream.stderr, Buffer.from(text));

describe('places in the output', () => {
  it('are read as they are written, and anything else is the beginning', () => {
    const place = { log: '12:345:2026-01-02T03:04:05.000000001Z', stdout: 3, stderr: 0 };
    expect(parseOutputPosition(outputPositionText(place))).toEqual(place);
    expect(parseOutputPosition('')).toEqual({ log: '', stdout: 0, stderr: 0 });
  });

  it('take away what the client has, by stream, over as many frames as it takes', () => {
    const skip = new OutputSkip({ stdout: 5, stderr: 1 }, false);
    const rest = (...frames: Uint8Array[]) => Buffer.from(skip.apply(Buffer.concat(frames))).toString('latin1');
    expect(rest(out('abc'), err('xyz'))).toBe(err('yz').toString('latin1'));
    expect(skip.left).toEqual({ stdout: 2, stderr: 0 });
    expect(rest(out('def'))).toBe(out('f').toString('latin1'));
    expect(rest(out('ghi'), err('z'))).toBe(Buffer.concat([out('ghi'), err('z')]).toString('latin1'));
  });

  it('of a terminal are counted in bytes alone', () => {
    const skip = new OutputSkip({ stdout: 4, stderr: 0 }, true);
    expect(Buffer.from(skip.apply(Buffer.from('abc'))).toString()).toBe('');
    expect(Buffer.from(skip.apply(Buffer.from('def'))).toString()).toBe('ef');
  });
});
