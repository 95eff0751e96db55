import { isEngineError } from '@flotilla/errors';
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { namePattern } from './name-pattern.js';

// The cases of Go's path.Match, as far as they fit names.
it.each([
  ['abc', 'abc', true],
  ['*', 'abc', true],
  ['*c', 'abc', true],
  ['a*', 'a', true],
  ['a*', 'abc', true],
  ['a*', 'ab/c', false],
  ['a*/b', 'abc/b', true],
  ['a*/b', 'a/c/b', false],
  ['a*b*c*d*e*/f', 'axbxcxdxe/f', true],
  ['a*b*c*d*e*/f', 'axbxcxdxexxx/f', true],
  ['a*b*c*d*e*/f', 'axbxcxdxe/xxx/f', false],
  ['a*b?c*x', 'abxbbxdbxebxczzx', true],
  ['a*b?c*x', 'abxbbxdbxebxczzy', false],
  ['ab[c]', 'abc', true],
  ['ab[b-d]', 'abc', true],
  ['ab[e-g]', 'abc', false],
  ['ab[^c]', 'abc', false],
  ['ab[^e-g]', 'abc', true],
  ['a\\*b', 'a*b', true],
  ['a\\*b', 'ab', false],
  ['a?b', 'a☺b', true],
  ['a???b', 'a☺b', false],
  ['[a-ζ]*', 'α', true],
  ['*[a-ζ]', 'A', false],
  ['a?b', 'a/b', false],
  ['a*b', 'a/b', false],
  ['[\\]a]', ']', true],
  ['[\\-]', '-', true],
  ['[z-a]', 'b', false],
  ['*x', 'xxx', true],
  ['', '', true],
  ['', 'a', false],
])('%s and %s: %s', (pattern, name, expected) => {
  expect(namePattern(pattern)(name)).toBe(expected);
});

it.each(['[]a]', '[-]', '[x-]', '[-x]', '[a-b-c]', '[', '[^', '[^bc', 'a[', 'a[a', '\\'])('refuses %s', (pattern) => {
  expect(() => namePattern(pattern)).toThrow('syntax error in pattern');
});

it('agrees with a regular expression, and never takes long', () => {
  const part = fc.constantFrom('a', 'b', '/', '*', '?', '[ab]', '[^a]');
  fc.assert(
    fc.property(fc.array(part, { maxLength: 8 }), fc.stringMatching(/^[ab/]{0,8}$/), (parts, name) => {
      const source = parts.join('').replaceAll('*', '[^/]*').replaceAll('?', '[^/]').replaceAll('[^a]', '[^a/]');
      // A class takes a slash in Go; here none is asked to.
      if (parts.includes('[^a]') && name.includes('/')) return;
      expect(namePattern(parts.join(''))(name)).toBe(new RegExp(`^${source}$`).test(name));
    }),
    { numRuns: 1_000 },
  );
  fc.assert(
    fc.property(
      fc.string({ maxLength: 30, unit: fc.constantFrom('a', 'b', '*', '?', '[', ']', '^', '-', '\\', '/') }),
      (pattern) => {
        try {
          namePattern(pattern)('a'.repeat(500));
        } catch (error) {
          if (!isEngineError(error, 'invalidArgument')) throw error;
        }
      },
    ),
    { numRuns: 1_000 },
  );
  expect(namePattern('*a'.repeat(200))('a'.repeat(300) + 'b')).toBe(false);
});
