import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { Patience } from './patience.js';

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

describe('patience', () => {
  it('ends once there was no progress for the limit, and a tenth of it', async () => {
    const progress = new Int32Array(new SharedArrayBuffer(4));
    using patience = new Patience(progress, 1000, undefined);
    let isOver = false;
    void patience.end.then(() => (isOver = true));
    const after = async (ms: number) => {
      await vi.advanceTimersByTimeAsync(ms);
      return isOver;
    };
    // A thread that is not there yet.
    expect(await after(5000)).toBe(false);
    for (let at = 0; at < 5; at += 1) {
      Atomics.add(progress, 0, 1);
      expect(await after(900)).toBe(false);
    }
    expect(await after(200)).toBe(true);
  });

  it('ends with the signal', async () => {
    const stop = new AbortController();
    using patience = new Patience(new Int32Array(new SharedArrayBuffer(4)), 1000, stop.signal);
    stop.abort();
    await patience.end;
  });
});
