import { describe, expect, it } from 'vitest';
import { KeyedLocks } from './keyed-locks.js';

const turn = () => new Promise(setImmediate);

describe('KeyedLocks', () => {
  it('runs one at a time per key, first come first served, and different keys side by side', async () => {
    const locks = new KeyedLocks();
    const log: string[] = [];
    const task = (key: string, name: string) =>
      locks.run(key, async () => {
        log.push(`+${name}`);
        await turn();
        log.push(`-${name}`);
        return name;
      });
    const results = await Promise.all([task('a', '1'), task('a', '2'), task('b', '3'), task('a', '4')]);
    expect(results).toEqual(['1', '2', '3', '4']);
    expect(log.filter((entry) => !entry.endsWith('3'))).toEqual(['+1', '-1', '+2', '-2', '+4', '-4']);
    expect(log.indexOf('+3')).toBeLessThan(log.indexOf('-1'));
    expect(locks.isHeld('a')).toBe(false);
  });

  it('takes several keys without deadlock, whatever order they are named in', async () => {
    const locks = new KeyedLocks();
    let inside = 0;
    const both = (keys: string[]) =>
      locks.run(keys, async () => {
        inside += 1;
        expect(inside).toBe(1);
        await turn();
        inside -= 1;
      });
    await Promise.all([both(['a', 'b']), both(['b', 'a']), both(['b', 'b', 'a']), both(['a', 'c'])]);
    expect(['a', 'b', 'c'].some((key) => locks.isHeld(key))).toBe(false);
  });

  it('lets one who waits go, and nobody in before his turn', async () => {
    const locks = new KeyedLocks();
    let end = () => {};
    const first = locks.run('a', () => new Promise<void>((resolve) => (end = resolve)));
    const stop = new AbortController();
    const waiting = locks.run('a', () => 'never', stop.signal);
    let hasRun = false;
    const last = locks.run('a', () => (hasRun = true), new AbortController().signal);
    stop.abort(new Error('gone'));
    await expect(waiting).rejects.toThrow('gone');
    await turn();
    expect([hasRun, locks.isHeld('a')]).toEqual([false, true]);
    end();
    await Promise.all([first, last]);
    expect([hasRun, locks.isHeld('a')]).toEqual([true, false]);
    await expect(locks.run('a', () => 1, AbortSignal.abort(new Error('late')))).resolves.toBe(1);
  });

  it('lets the next in when a holder throws', async () => {
    const locks = new KeyedLocks();
    const failing = locks.run(['a', 'b'], () => Promise.reject(new Error('no')));
    const next = locks.run('b', () => 'in');
    await expect(failing).rejects.toThrow('no');
    expect(await next).toBe('in');
  });
});
