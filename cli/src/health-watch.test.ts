import { describe, expect, it } from 'vitest';
import { Bell, watchHealth } from './health-watch.js';
import type { Health } from './health-watch.js';

describe('the watch over a process', () => {
  it('believes a process that says it serves, without asking', async () => {
    const serves = new Bell();
    const stop = new AbortController();
    const seen: Health[] = [];
    let asked = 0;
    const watching = watchHealth({
      check: () => Promise.resolve((asked++, 'NOT_SERVING')),
      serves,
      startIntervalMs: 10_000,
      pid: () => 1,
      onSilent: () => undefined,
      onChange: (health) => {
        seen.push(health);
        stop.abort();
      },
      signal: stop.signal,
    });
    serves.ring();
    await watching;
    expect(seen).toEqual(['SERVING']);
    expect(asked).toBe(0);
  });

  it('asks a process that says nothing', async () => {
    const stop = new AbortController();
    const seen: Health[] = [];
    const answers: Health[] = ['UNREACHABLE', 'SERVING'];
    await watchHealth({
      check: () => Promise.resolve(answers.shift() ?? 'SERVING'),
      serves: new Bell(),
      startIntervalMs: 1,
      pid: () => 1,
      onSilent: () => undefined,
      onChange: (health) => {
        seen.push(health);
        stop.abort();
      },
      signal: stop.signal,
    });
    expect(seen).toEqual(['SERVING']);
  });
});

describe('a bell', () => {
  it('is heard by whoever comes later, once', async () => {
    const bell = new Bell();
    const { signal } = new AbortController();
    bell.ring();
    expect(await bell.wait(1, signal)).toBe(true);
    expect(await bell.wait(1, signal)).toBe(false);
  });

  it('wakes nobody whose signal has fired', async () => {
    expect(await new Bell().wait(60_000, AbortSignal.abort())).toBe(false);
  });
});
