import { describe, expect, it } from 'vitest';
import { freeSubordinateRange, subordinateMapping } from './subordinate-ids.js';

const path = '/etc/subuid';

describe('subordinateMapping', () => {
  it.each([
    ['one range', 'a:100000:65536\nb:165536:65536\n', ['a'], [[0, 100000, 65536]]],
    [
      'several, in the order of the file',
      'a:5000:10\nb:1:1\na:1000:20',
      ['a'],
      [
        [0, 5000, 10],
        [10, 1000, 20],
      ],
    ],
    [
      'by name or number',
      '1000:10:5\na:20:5\n',
      ['a', '1000'],
      [
        [0, 10, 5],
        [5, 20, 5],
      ],
    ],
    ['comments and blanks', '# who\n\n  a:7:1  \n', ['a'], [[0, 7, 1]]],
    ['up to the last id', `a:${2 ** 32 - 2}:1`, ['a'], [[0, 2 ** 32 - 2, 1]]],
  ] as [string, string, string[], number[][]][])('reads %s', (_what, text, names, expected) => {
    expect(subordinateMapping(text, path, names).map(Object.values)).toEqual(expected);
  });

  it.each([
    ['', 'no subuid ranges found for user "a"'],
    ['b:1:1', 'no subuid ranges found for user "a"'],
    ['a:1', 'Format not correct for /etc/subuid file: a:1'],
    ['a:x:1', 'Format not correct for /etc/subuid file: a:x:1'],
    ['a:-1:1', 'Format not correct'],
    ['a:1:0', 'Format not correct'],
    ['a:1:1:1', 'Format not correct'],
    [':1:1', 'Format not correct'],
    ['a:100:50\na:149:10', 'the range from 100 on overlaps another or ends beyond the last id'],
    [`a:${2 ** 32 - 2}:2`, 'overlaps another or ends beyond the last id'],
    [Array.from({ length: 341 }, (_, at) => `a:${at}:1`).join('\n'), '/etc/subuid has more than 340 ranges for a'],
  ])('refuses %j: %s', (text, message) => {
    expect(() => subordinateMapping(text, path, ['a'])).toThrow(message);
  });

  it('names the file', () => {
    expect(() => subordinateMapping('', '/etc/subgid', ['g'])).toThrow('no subgid ranges found for user "g"');
  });
});

describe('freeSubordinateRange', () => {
  it.each([
    ['', { first: 100000, last: 165535 }],
    ['a:100000:65536\nb:500000:100', { first: 500100, last: 565635 }],
    ['a:10:10', { first: 100000, last: 165535 }],
  ])('lies after all others of %j', (text, expected) => {
    expect(freeSubordinateRange(text, path)).toEqual(expected);
  });
});
