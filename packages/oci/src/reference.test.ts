import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { isEngineError } from '@flotilla/errors';
import {
  canonicalString,
  familiarString,
  isDigest,
  parseAnyReference,
  parseReference,
  withDefaultTag,
  withTag,
  withTagOrDigest,
} from './index.js';

const hex = 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855';

describe('parseReference', () => {
  it.each([
    ['busybox', 'docker.io/library/busybox', 'busybox'],
    ['busybox:1.36', 'docker.io/library/busybox:1.36', 'busybox:1.36'],
    ['docker.io/busybox', 'docker.io/library/busybox', 'busybox'],
    ['index.docker.io/library/busybox', 'docker.io/library/busybox', 'busybox'],
    ['library/a/b', 'docker.io/library/a/b', 'library/a/b'],
    ['me/app:x', 'docker.io/me/app:x', 'me/app:x'],
    ['localhost/app', 'localhost/app', 'localhost/app'],
    ['127.0.0.1:5000/a/b_c:T.1', '127.0.0.1:5000/a/b_c:T.1', '127.0.0.1:5000/a/b_c:T.1'],
    ['[::1]:5000/app', '[::1]:5000/app', '[::1]:5000/app'],
    ['Registry/app', 'Registry/app', 'Registry/app'],
    [`app:x@sha256:${hex}`, `docker.io/library/app:x@sha256:${hex}`, `app:x@sha256:${hex}`],
    ['a__b--c.d', 'docker.io/library/a__b--c.d', 'a__b--c.d'],
  ])('%s', (text, canonical, familiar) => {
    const reference = parseReference(text);
    expect(canonicalString(reference)).toBe(canonical);
    expect(familiarString(reference)).toBe(familiar);
  });

  it.each([
    ['', 'invalid reference format'],
    [':x', 'invalid reference format'],
    ['a:', 'invalid reference format'],
    ['a b', 'invalid reference format'],
    ['a..b', 'invalid reference format'],
    ['a___b', 'invalid reference format'],
    ['-a', 'invalid reference format'],
    ['a//b', 'invalid reference format'],
    ['../../etc/passwd', 'invalid reference format'],
    [`a:${'t'.repeat(129)}`, 'invalid reference format'],
    ['a@sha256:abc', 'invalid reference format'],
    ['BusyBox', 'invalid reference format: repository name (library/BusyBox) must be lowercase'],
    ['127.0.0.1:5000/Web', 'invalid reference format: repository name (Web) must be lowercase'],
    [hex, `invalid repository name (${hex}), cannot specify 64-byte hexadecimal strings`],
    [`a@sha256:${hex.slice(0, 40)}`, 'invalid checksum digest length'],
    [`a@md5:${hex.slice(0, 32)}`, 'unsupported digest algorithm'],
    [`x.y/${'a'.repeat(256)}`, 'repository name must not be more than 255 characters'],
    ['a'.repeat(100_000), 'invalid reference format'],
  ])('refuses %s', (text, message) => {
    expect(() => parseReference(text)).toThrow(message);
  });

  it('takes an id where a name may stand', () => {
    expect(parseAnyReference(hex)).toEqual({ kind: 'id', id: `sha256:${hex}` });
    expect(parseAnyReference(`sha256:${hex}`)).toEqual({ kind: 'id', id: `sha256:${hex}` });
    expect(parseAnyReference('busybox')).toMatchObject({ kind: 'name' });
  });

  it('adds tags and digests', () => {
    expect(familiarString(withDefaultTag(parseReference('a')))).toBe('a:latest');
    expect(familiarString(withDefaultTag(parseReference('a:b')))).toBe('a:b');
    expect(familiarString(withTagOrDigest(parseReference('a:b'), `sha256:${hex}`))).toBe(`a@sha256:${hex}`);
    expect(() => withTag(parseReference('a'), 'b c')).toThrow('invalid tag format');
  });

  it('never fails but with invalidArgument, and is stable', () => {
    const alphabet = fc.constantFrom(
      'a',
      'A',
      '0',
      '.',
      '_',
      '-',
      '/',
      ':',
      '@',
      '[',
      ']',
      'sha256:',
      hex,
      'docker.io',
      'localhost',
      'é',
      '\0',
    );
    const text = fc.oneof(
      fc.array(alphabet, { maxLength: 40 }).map((it) => it.join('')),
      fc.string({ maxLength: 300 }),
    );
    fc.assert(
      fc.property(text, (it) => {
        try {
          const canonical = canonicalString(parseReference(it));
          expect(canonicalString(parseReference(canonical))).toBe(canonical);
          expect(canonicalString(parseReference(familiarString(parseReference(it))))).toBe(canonical);
        } catch (error) {
          if (!isEngineError(error, 'invalidArgument')) throw error;
        }
      }),
      { numRuns: 2000 },
    );
  });

  it('takes linear time', () => {
    const started = performance.now();
    for (const it of ['a'.repeat(1000), '-'.repeat(1000), `${'a-'.repeat(500)}!`, `${'a.'.repeat(500)}/x!`]) {
      expect(() => parseReference(it)).toThrow();
    }
    expect(performance.now() - started).toBeLessThan(500);
  });
});

describe('digests', () => {
  it('are strict', () => {
    expect(isDigest(`sha256:${hex}`)).toBe(true);
    expect(isDigest(`sha256:${hex.toUpperCase()}`)).toBe(false);
    expect(isDigest(`sha256:${hex}0`)).toBe(false);
    expect(isDigest('sha256:../x')).toBe(false);
  });
});
