import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { RootfsUses } from './rootfs-uses.js';

describe('RootfsUses', () => {
  beforeEach(() => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] });
  });
  afterEach(() => {
    vi.useRealTimers();
  });

  /** Whether a promise has settled by now. */
  const observe = (promise: Promise<void>) => {
    const seen = { settled: false };
    void promise.then(() => (seen.settled = true));
    return seen;
  };

  it('waits for all of a container and for no other', async () => {
    const uses = new RootfsUses(1000);
    await uses.settle('a');
    const [first, second] = [uses.begin('a'), uses.begin('a')];
    uses.begin('b');
    const waiting = observe(uses.settle('a'));
    first.end();
    await vi.advanceTimersByTimeAsync(1);
    expect(waiting.settled).toBe(false);
    second.end();
    await vi.advanceTimersByTimeAsync(1);
    expect(waiting.settled).toBe(true);
    expect(second.signal.aborted).toBe(false);
  });

  it('ends one that stands still while it is waited for, and only then', async () => {
    const uses = new RootfsUses(1000);
    const use = uses.begin('a');
    await vi.advanceTimersByTimeAsync(5000);
    expect(use.signal.aborted).toBe(false);
    use.progress();
    const waiting = observe(uses.settle('a'));
    await vi.advanceTimersByTimeAsync(900);
    use.progress();
    await vi.advanceTimersByTimeAsync(900);
    expect(use.signal.aborted).toBe(false);
    await vi.advanceTimersByTimeAsync(200);
    expect(use.signal.reason).toMatchObject({ kind: 'conflict' });
    expect(waiting.settled).toBe(false);
    use.end();
    await vi.advanceTimersByTimeAsync(1);
    expect(waiting.settled).toBe(true);
  });

  it('ends all for a removal', async () => {
    const uses = new RootfsUses(1000);
    const use = uses.begin('a');
    const waiting = observe(uses.endAll('a', 'gone'));
    expect(use.signal.reason).toMatchObject({ kind: 'conflict', message: 'gone' });
    use.end();
    await vi.advanceTimersByTimeAsync(1);
    expect(waiting.settled).toBe(true);
  });
});
