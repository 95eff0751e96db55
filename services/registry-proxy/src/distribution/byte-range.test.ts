import { describe, expect, it } from 'vitest';
import { readRange } from './byte-range.js';

describe('readRange', () => {
  it.each<[string | undefined, number, [number, number] | undefined]>([
    [undefined, 10, [0, 10]],
    ['bytes=0-', 10, [0, 10]],
    ['bytes=3-5', 10, [3, 6]],
    ['bytes=3-500', 10, [3, 10]],
    ['bytes=9-', 10, [9, 10]],
    ['bytes=10-', 10, undefined],
    ['bytes=-3', 10, [7, 10]],
    ['bytes=-30', 10, [0, 10]],
    ['bytes=-0', 10, undefined],
    ['bytes=5-3', 10, [0, 10]],
    ['bytes=0-1,3-4', 10, [0, 10]],
    ['lines=0-1', 10, [0, 10]],
    ['bytes=-', 10, [0, 10]],
    ['bytes=99999999999999999999-', 10, [0, 10]],
    ['bytes=0-', 0, undefined],
    [undefined, 0, [0, 0]],
  ])('%s of %i', (header, size, range) => {
    expect(readRange(header, size)).toEqual(range === undefined ? undefined : { start: range[0], end: range[1] });
  });
});
