import { describe, expect, it } from 'vitest';
import { SeenEvents } from './seen-events.js';

describe('SeenEvents', () => {
  it('takes each event of each outbox once', () => {
    const seen = new SeenEvents();
    expect(seen.add('container-1')).toBe(true);
    expect(seen.add('container-1')).toBe(false);
    expect(seen.add('registry-proxy-1')).toBe(true);
    expect(seen.add('container-2')).toBe(true);
    expect(seen.add('container-1')).toBe(false);
  });

  it('begins anywhere and takes nothing older than its beginning', () => {
    const seen = new SeenEvents();
    expect(seen.add('image-50')).toBe(true);
    expect(seen.add('image-49')).toBe(false);
    expect(seen.add('image-51')).toBe(true);
  });

  it('takes an event that was refused once and came behind its successors', () => {
    const seen = new SeenEvents();
    expect([5, 8, 6, 8, 7, 6].map((sequence) => seen.add(`volume-${sequence}`))).toEqual([
      true,
      true,
      true,
      false,
      true,
      false,
    ]);
  });

  it('remembers a bounded number of holes', () => {
    const seen = new SeenEvents();
    seen.add('volume-1');
    expect(seen.add('volume-1000000000000')).toBe(true);
    expect(seen.add('volume-2')).toBe(false);
    expect(seen.add('volume-999999999999')).toBe(true);
    for (let sequence = 2; sequence < 10_000; sequence += 2) seen.add(`image-${sequence}`);
    expect(seen.add('image-3')).toBe(false);
    expect(seen.add('image-9997')).toBe(true);
  });

  it('refuses what is no event id', () => {
    const seen = new SeenEvents();
    for (const id of ['', 'volume', 'volume-', '-1', 'volume-x']) expect(seen.add(id)).toBe(false);
  });
});
