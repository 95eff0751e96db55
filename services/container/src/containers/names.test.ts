import { describe, expect, it } from 'vitest';
import { generateContainerName, parseContainerName } from './names.js';

describe('container names', () => {
  it('accepts what dockerd accepts and drops one slash', () => {
    expect(parseContainerName('web-1.a_B')).toBe('web-1.a_B');
    expect(parseContainerName('/web')).toBe('web');
    expect(parseContainerName('a'.repeat(300))).toHaveLength(300);
  });

  it.each(['', 'a', '-web', 'we b', '//web', 'wéb', 'a/b', 'web\n', '.web', '../etc'])('refuses %j', (name) => {
    expect(() => parseContainerName(name)).toThrow(
      `Invalid container name (${name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed`,
    );
  });

  it('generates names that are valid and free', () => {
    const taken = new Set<string>();
    for (let i = 0; i < 500; i++) {
      const name = generateContainerName((candidate) => taken.has(candidate));
      expect(parseContainerName(name)).toBe(name);
      expect(taken.has(name)).toBe(false);
      taken.add(name);
    }
  });

  it('ends even when every short name is taken', () => {
    expect(generateContainerName((name) => !/\d/.test(name))).toMatch(/^[a-z]+_[a-z]+\d+$/);
  });
});
