import { notFound } from '@flotilla/errors';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import type { ContainerRecord } from '../store/container-record.js';
import { type StatsOptions, StatsSampler } from './stats-sampler.js';

interface Stats {
  read: string;
  preread: string;
  cpu_stats: { cpu_usage: { total_usage: number } };
}

/** Answers like the service does, of containers that are only names. */
function samplerOf(names: Set<string>) {
  const counts = new Map<string, number>();
  const pids = new Map<string, number>();
  const record = (id: string): ContainerRecord => ({ container: { id, name: id } }) as ContainerRecord;
  const sampler = new StatsSampler({
    resolve: (name) => {
      if (!names.has(name)) throw notFound(`No such container: ${name}`);
      return record(name);
    },
    get: (id) => (names.has(id) ? record(id) : undefined),
    sample: ({ container: { id } }) => {
      const pid = pids.get(id) ?? 1;
      if (pid === 0) return undefined;
      const count = (counts.get(id) ?? 0) + 1;
      counts.set(id, count);
      const usage = { total_usage: count, usage_in_kernelmode: 0, usage_in_usermode: 0 };
      const cpu = { cpu_usage: usage, throttling_data: { periods: 0, throttled_periods: 0, throttled_time: 0 } };
      return { pid, read: `reading ${count}`, cpu, rest: {} };
    },
  });
  return { sampler, counts, pids };
}

const streaming = (stop: AbortSignal): StatsOptions => ({
  stream: true,
  oneShot: false,
  signal: AbortSignal.any([stop]),
});
const none = '0001-01-01T00:00:00Z';

describe('stats for many who ask', () => {
  let stop: AbortController;
  beforeEach(() => {
    vi.useFakeTimers();
    stop = new AbortController();
  });
  afterEach(() => {
    stop.abort();
    vi.useRealTimers();
  });
  const take = async (stats: AsyncGenerator<string>): Promise<Stats | undefined> => {
    const next = await stats.next();
    return next.done === true ? undefined : (JSON.parse(next.value) as Stats);
  };

  it('measure a container once a second for all of them', async () => {
    const names = ['one', 'two', 'three'];
    const { sampler, counts } = samplerOf(new Set(names));
    const readers = names.flatMap((name) =>
      Array.from({ length: 20 }, () => sampler.read(name, streaming(stop.signal))),
    );
    for (const reader of readers) expect(await take(reader)).toMatchObject({ read: 'reading 1', preread: none });
    for (let second = 2; second <= 5; second += 1) {
      const answers = readers.map(take);
      await vi.advanceTimersByTimeAsync(1000);
      const expected = { read: `reading ${second}`, preread: `reading ${second - 1}` };
      for (const answer of answers) expect(await answer).toMatchObject(expected);
    }
    expect([...counts.values()]).toEqual([5, 5, 5]);
    expect(sampler.size).toBe(3);
  });

  it('are not measured for nobody', async () => {
    const { sampler, counts } = samplerOf(new Set(['one']));
    const [first, second] = [sampler.read('one', streaming(stop.signal)), sampler.read('one', streaming(stop.signal))];
    await Promise.all([take(first), take(second)]);
    await first.return();
    expect(sampler.size).toBe(1);
    const last = take(second);
    stop.abort();
    expect(await last).toBeUndefined();
    expect(sampler.size).toBe(0);
    await vi.advanceTimersByTimeAsync(10_000);
    expect(counts.get('one')).toBe(1);
    expect(vi.getTimerCount()).toBe(0);
  });

  it('who reads slowly gets the newest, and one who asks once needs no second of his own', async () => {
    const { sampler } = samplerOf(new Set(['one']));
    const slow = sampler.read('one', streaming(stop.signal));
    expect(await take(slow)).toMatchObject({ read: 'reading 1' });
    await vi.advanceTimersByTimeAsync(60_000);
    expect(await take(slow)).toMatchObject({ read: 'reading 61', preread: 'reading 60' });
    const once = { stream: false, signal: stop.signal };
    expect(await take(sampler.read('one', { ...once, oneShot: false }))).toMatchObject({ preread: 'reading 60' });
    expect(await take(sampler.read('one', { ...once, oneShot: true }))).toMatchObject({ preread: none });
  });

  it('whoever asks once and is alone waits for the second sample', async () => {
    const { sampler } = samplerOf(new Set(['one']));
    const once = sampler.read('one', { stream: false, oneShot: false, signal: stop.signal });
    const answer = take(once);
    await vi.advanceTimersByTimeAsync(1000);
    expect(await answer).toMatchObject({ read: 'reading 2', preread: 'reading 1' });
    expect(await take(once)).toBeUndefined();
    expect(sampler.size).toBe(0);
  });

  it('go on over a restart, without comparing with the run before, and end with the container', async () => {
    const names = new Set(['one']);
    const { sampler, pids } = samplerOf(names);
    const reader = sampler.read('one', streaming(stop.signal));
    const next = async (): Promise<Stats | undefined> => {
      const answer = take(reader);
      await vi.advanceTimersByTimeAsync(1000);
      return answer;
    };
    await take(reader);
    pids.set('one', 0);
    expect(await next()).toMatchObject({ read: none, preread: none });
    pids.set('one', 7);
    expect(await next()).toMatchObject({ read: 'reading 2', preread: none });
    pids.set('one', 8);
    expect(await next()).toMatchObject({ read: 'reading 3', preread: none });
    names.delete('one');
    expect(await next()).toBeUndefined();
  });
});
