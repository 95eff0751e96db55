import { setTimeout as delay } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { ProgressLog } from './progress-log.js';

const never = new AbortController().signal;

describe('ProgressLog', () => {
  it('keeps every status in order and folds numbers', async () => {
    const log = new ProgressLog();
    const seen: string[] = [];
    const work = async () => {
      for (let at = 1; at <= 1000; at += 1) log.detail('a', 'Downloading', at, 1000);
      log.push({ id: 'b', status: 'Waiting' });
      log.detail('a', 'Downloading', 1000, 1000);
      log.push({ id: 'a', status: 'Download complete' });
      await delay(1);
      return 42;
    };
    let result = 0;
    for await (const step of log.during(work, never)) {
      seen.push(...step.lines.map(({ id, status, current }) => `${id} ${status} ${current}`));
      result = step.result ?? result;
    }
    expect(seen).toEqual(['a Downloading 1000', 'b Waiting 0', 'a Download complete 0']);
    expect(result).toBe(42);
  });

  it('gives the lines before a failure', async () => {
    const log = new ProgressLog();
    const seen: string[] = [];
    const reading = (async () => {
      const work = async () => {
        log.push({ status: 'one' });
        await delay(1);
        throw new Error('broken');
      };
      for await (const { lines } of log.during(work, never)) seen.push(...lines.map(({ status }) => status));
    })();
    await expect(reading).rejects.toThrow('broken');
    expect(seen).toEqual(['one']);
  });

  it('stops the work when the reader leaves', async () => {
    const log = new ProgressLog();
    let isOver = false;
    const work = async (signal: AbortSignal) => {
      log.push({ status: 'one' });
      await delay(60_000, undefined, { signal }).catch(() => undefined);
      isOver = true;
    };
    for await (const { lines } of log.during(work, never)) if (lines.length > 0) break;
    expect(isOver).toBe(true);
  });
});
