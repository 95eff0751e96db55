import { describe, expect, it } from 'vitest';
import { HybridClock } from './hybrid-clock.js';

describe('HybridClock', () => {
  it('follows the wall clock and never repeats or goes back', () => {
    let wall = 1000n;
    const clock = new HybridClock(() => wall);
    expect(clock.now()).toBe(1000n);
    expect(clock.now()).toBe(1001n);
    wall = 500n;
    expect(clock.now()).toBe(1002n);
    wall = 2000n;
    expect(clock.now()).toBe(2000n);
  });

  it('stamps behind what it observed, but does not follow a clock a minute ahead', () => {
    const clock = new HybridClock(() => 1000n);
    clock.observe(5000n);
    expect(clock.now()).toBe(5001n);
    clock.observe(3000n);
    expect(clock.now()).toBe(5002n);
    clock.observe(60_000_001_001n);
    expect(clock.now()).toBe(5003n);
  });

  it('is close to the real time and finer than a millisecond', () => {
    const clock = new HybridClock();
    const times = Array.from({ length: 100 }, () => clock.now());
    expect(Math.abs(Number(times[0] ?? 0n) / 1e6 - Date.now())).toBeLessThan(50);
    expect(times.some((time) => time % 1_000_000n !== 0n)).toBe(true);
    expect(new Set(times).size).toBe(100);
  });
});
