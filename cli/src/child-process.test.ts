import { createLogger } from '@flotilla/log';
import { describe, expect, it } from 'vitest';
import { KeptProcess } from './child-process.js';

/** The pauses before the first `count` new starts of a process that ends at once. */
async function pausesOf(script: string, count: number): Promise<number[]> {
  const pauses: number[] = [];
  const log = createLogger({ service: 'test', level: 'fatal', format: 'text' });
  log.warn = (details: object) => {
    if ('pauseMs' in details) pauses.push(details.pauseMs as number);
  };
  const kept = new KeptProcess({
    ...{ name: 'short-lived', log, onChange: () => undefined },
    command: () => ({ file: 'sh', args: ['-c', script] }),
  });
  kept.start();
  await expect.poll(() => pauses.length).toBeGreaterThanOrEqual(count);
  await kept.stop();
  return pauses.slice(0, count);
}

describe('a process that ends again and again', () => {
  it('is started after a growing pause when it never served', async () => {
    expect(await pausesOf('exit 1', 6)).toEqual([0, 100, 200, 400, 800, 1600]);
  });

  it('is started soon when it had served', async () => {
    expect(await pausesOf('echo serving >&3; exit 1', 7)).toEqual([0, 100, 200, 400, 400, 400, 400]);
  });
});
