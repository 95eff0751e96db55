import { describe, expect, it } from 'vitest';
import { CircuitBreaker } from './circuit-breaker.js';

describe('CircuitBreaker', () => {
  it('opens after failures in a row, lets one request try, and closes when that works', () => {
    let now = 1000;
    const breaker = new CircuitBreaker({ failures: 3, openMs: 100, maxOpenMs: 150 }, () => now);
    breaker.failed('a', 'one');
    breaker.failed('a', 'two');
    expect(breaker.refusal('a')).toBeUndefined();
    breaker.succeeded('a');
    for (const failure of ['one', 'two', 'three']) breaker.failed('a', failure);
    expect(breaker.refusal('a')).toBe('three');
    expect(breaker.refusal('b')).toBeUndefined();
    expect(breaker.open).toEqual(['a']);
    now += 100;
    expect(breaker.refusal('a')).toBeUndefined();
    // The second waits for the first's outcome.
    expect(breaker.refusal('a')).toBe('three');
    breaker.failed('a', 'four');
    now += 149;
    expect(breaker.refusal('a')).toBe('four');
    now += 1;
    expect(breaker.refusal('a')).toBeUndefined();
    breaker.abandoned('a');
    expect(breaker.refusal('a')).toBeUndefined();
    breaker.succeeded('a');
    expect(breaker.open).toEqual([]);
  });

  it('is bounded', () => {
    const breaker = new CircuitBreaker({ failures: 1, openMs: 100, maxOpenMs: 100 });
    for (let i = 0; i < 1100; i += 1) breaker.failed(`host-${i}`, i);
    expect(breaker.open).toHaveLength(1000);
    expect(breaker.refusal('host-0')).toBeUndefined();
    expect(breaker.refusal('host-1099')).toBe(1099);
  });
});
