import { silentLogger } from '@flotilla/log';
import { container } from '@flotilla/proto';
import { KeyedLocks } from '@flotilla/store';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { completeContainer, type ContainerRecord } from '../store/container-record.js';
import type { ContainerStore } from '../store/container-store.js';
import { stopAll } from './stop-all.js';

describe('the time that all stops together may take', () => {
  beforeEach(() => void vi.useFakeTimers());
  afterEach(() => void vi.useRealTimers());

  /** `db` is needed by `web`; both end only when they are killed. */
  function deafContainers(ownSeconds: number) {
    const record = (name: string, volumesFrom: string[]): ContainerRecord => ({
      container: completeContainer(container.Container.fromPartial({ id: name, name, hostConfig: { volumesFrom } })),
      internals: { network: { kind: 'none' } } as ContainerRecord['internals'],
      revision: 1n,
    });
    const records = [record('db', []), record('web', ['db'])];
    const told: string[] = [];
    const ends = new Map<string, () => void>();
    const stopper = {
      timeoutSecondsOf: () => ownSeconds,
      stopWithEngine: (id: string, { signal }: { signal: string }): Promise<boolean> => {
        told.push(`${signal} ${id}`.trim());
        if (signal === 'KILL') {
          ends.get(id)?.();
          return Promise.resolve(true);
        }
        return new Promise((resolve) => ends.set(id, () => resolve(true)));
      },
    };
    const store = { all: () => records } as unknown as ContainerStore;
    return { told, stopper, context: { store, locks: new KeyedLocks(), log: silentLogger() } };
  }

  it.each([
    ['the setting', 60, 10, 60],
    ['more when a container may take more', 15, 30, 35],
  ])('is %s', async (_what, configured, ownSeconds, expected) => {
    const { told, stopper, context } = deafContainers(ownSeconds);
    const stopped = stopAll(context, stopper, configured);
    await vi.advanceTimersByTimeAsync(expected * 1000 - 1);
    expect(told).toEqual(['web']);
    await vi.advanceTimersByTimeAsync(1);
    expect((await stopped).sort()).toEqual(['db', 'web']);
    expect(told.slice(1).sort()).toEqual(['KILL db', 'KILL db', 'KILL web']);
  });

  it.each([
    [-1, 10],
    [15, -1],
  ])('has no end with %i and %i', async (configured, ownSeconds) => {
    const { told, stopper, context } = deafContainers(ownSeconds);
    void stopAll(context, stopper, configured);
    await vi.advanceTimersByTimeAsync(10 * 24 * 3600 * 1000);
    expect(told).toEqual(['web']);
  });
});
