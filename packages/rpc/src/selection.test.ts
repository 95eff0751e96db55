import { describe, expect, it } from 'vitest';
import { isVisible, matchesLabels } from './selection.js';

const labels = { tier: 'web', empty: '' };

describe.each([
  ['a record', labels],
  ['a map', new Map(Object.entries(labels))],
])('labels in %s', (_, own) => {
  it('match by key or by key and value', () => {
    expect(matchesLabels(own, ['tier', 'empty', 'tier=web', 'empty='], [])).toBe(true);
    expect(matchesLabels(own, ['tier=db'], [])).toBe(false);
    expect(matchesLabels(own, ['other'], [])).toBe(false);
    expect(matchesLabels(own, [], ['tier'])).toBe(false);
    expect(matchesLabels(own, [], ['tier=db', 'other'])).toBe(true);
  });

  it('have no key that every object has', () => {
    expect(matchesLabels(own, ['constructor'], [])).toBe(false);
  });

  it('are seen when they hold all that the identity asks for', () => {
    const seenBy = (visibility: Record<string, string> | null) => isVisible(own, { name: 'ann', visibility });
    expect(seenBy(null)).toBe(true);
    expect(seenBy({ tier: 'web', empty: '' })).toBe(true);
    expect(seenBy({ tier: 'db' })).toBe(false);
    expect(seenBy({ owner: 'ann' })).toBe(false);
  });
});
