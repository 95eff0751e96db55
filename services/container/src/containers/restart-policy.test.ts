import { describe, expect, it } from 'vitest';
import { decideRestart, parseRestartPolicy, startsWithEngine, type EndedTask } from './restart-policy.js';

const ended: EndedTask = { exitCode: 1, ranForMs: 5, restartCount: 0, previousDelayMs: 0, stoppedByUser: false };

describe('restart policies', () => {
  it('doubles the delay from 100 ms to one minute and starts anew after ten stable seconds', () => {
    const always = parseRestartPolicy('always', 0);
    const delays: number[] = [];
    let previousDelayMs = 0;
    for (let restartCount = 0; restartCount < 12; restartCount++) {
      previousDelayMs = decideRestart(always, { ...ended, restartCount, previousDelayMs })?.delayMs ?? -1;
      delays.push(previousDelayMs);
    }
    expect(delays).toEqual([100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 51200, 60000, 60000]);
    expect(decideRestart(always, { ...ended, previousDelayMs, ranForMs: 10_000 })).toEqual({ delayMs: 100 });
  });

  it('restarts on failure as often as allowed', () => {
    const policy = parseRestartPolicy('on-failure', 2);
    expect(decideRestart(policy, ended)).toBeDefined();
    expect(decideRestart(policy, { ...ended, restartCount: 2 })).toBeUndefined();
    expect(decideRestart(policy, { ...ended, exitCode: 0 })).toBeUndefined();
    expect(decideRestart(parseRestartPolicy('on-failure', 0), { ...ended, restartCount: 99 })).toBeDefined();
  });

  it('leaves a container alone that a user stopped', () => {
    for (const name of ['always', 'unless-stopped', 'on-failure']) {
      expect(decideRestart(parseRestartPolicy(name, 0), { ...ended, stoppedByUser: true })).toBeUndefined();
    }
    expect(decideRestart(parseRestartPolicy('', 0), ended)).toBeUndefined();
  });

  it('refuses what dockerd refuses, in its words', () => {
    expect(() => parseRestartPolicy('sometimes', 0)).toThrow(
      "invalid restart policy: unknown policy 'sometimes'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'",
    );
    expect(() => parseRestartPolicy('always', 3)).toThrow(
      "invalid restart policy: maximum retry count can only be used with 'on-failure'",
    );
    expect(() => parseRestartPolicy('on-failure', -1)).toThrow('maximum retry count cannot be negative');
  });

  it('decides at engine start', () => {
    const stopped = { hasBeenStarted: true, stoppedByUser: true, exitCode: 0, restartCount: 0 };
    expect(startsWithEngine(parseRestartPolicy('always', 0), stopped)).toBe(true);
    expect(startsWithEngine(parseRestartPolicy('unless-stopped', 0), stopped)).toBe(false);
    expect(startsWithEngine(parseRestartPolicy('unless-stopped', 0), { ...stopped, stoppedByUser: false })).toBe(true);
    expect(startsWithEngine(parseRestartPolicy('always', 0), { ...stopped, hasBeenStarted: false })).toBe(false);
    expect(startsWithEngine(parseRestartPolicy('no', 0), { ...stopped, stoppedByUser: false })).toBe(false);
    const failed = { ...stopped, stoppedByUser: false, exitCode: 1 };
    expect(startsWithEngine(parseRestartPolicy('on-failure', 0), failed)).toBe(true);
    expect(startsWithEngine(parseRestartPolicy('on-failure', 2), { ...failed, restartCount: 2 })).toBe(false);
  });
});
