import { describe, expect, it } from 'vitest';
import { absolutePath } from './path-in-root.js';

describe('absolutePath', () => {
  it.each([
    ['/a/b', '/a/b'],
    ['a/b', '/a/b'],
    ['/a/b/', '/a/b/'],
    ['/a/b/.', '/a/b/.'],
    ['/a//./b/../c', '/a/c'],
    ['../../a/', '/a/'],
    ['/', '/'],
    ['.', '/.'],
    ['/.', '/.'],
    ['..', '/'],
    ['./', '/.'],
    ['//', '/'],
  ])('of %j is %j', (path, expected) => {
    expect(absolutePath(path)).toBe(expected);
  });
});
