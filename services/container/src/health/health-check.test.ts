import { container, timestampFromNs } from '@flotilla/proto';
import { describe, expect, it } from 'vitest';
import { type HealthCheck, healthAfter, healthAtStart, healthCheckOf, nextProbeMs } from './health-check.js';

const configOf = (test: string[], more: object = {}, shell: string[] = []): container.ContainerConfig =>
  container.ContainerConfig.fromPartial({ healthcheck: { test, ...more }, shell });
const checkOf = (config: container.ContainerConfig): HealthCheck => {
  const check = healthCheckOf(config);
  if (check === undefined) throw new Error('no check');
  return check;
};

describe('health checks', () => {
  it.each<[string, string[]]>([
    ['nothing', []],
    ['NONE', ['NONE']],
    ['a kind alone', ['CMD']],
  ])('%s is no check', (_what, test) => {
    expect(healthCheckOf(configOf(test))).toBeUndefined();
    expect(healthAtStart(configOf(test))).toBeUndefined();
  });

  it("commands, shells and Docker's defaults", () => {
    expect(checkOf(configOf(['CMD', 'a', 'b']))).toEqual({
      command: ['a', 'b'],
      intervalMs: 30_000,
      timeoutMs: 30_000,
      startPeriodMs: 0,
      startIntervalMs: 5000,
      retries: 3,
    });
    expect(checkOf(configOf(['CMD-SHELL', 'exit 1'])).command).toEqual(['/bin/sh', '-c', 'exit 1']);
    expect(checkOf(configOf(['CMD-SHELL', 'x'], {}, ['bash', '-ec'])).command).toEqual(['bash', '-ec', 'x']);
    expect(checkOf(configOf(['CMD', 'a'], { intervalNs: 2_000_000n, retries: 1n }))).toMatchObject({
      intervalMs: 2,
      retries: 1,
    });
  });

  it('an interval longer than a timer can hold is not over at once', () => {
    const hours = 1000n * 3_600_000_000_000n;
    const check = checkOf(configOf(['CMD', 'a'], { intervalNs: hours, timeoutNs: hours }));
    expect([check.intervalMs, check.timeoutMs]).toEqual([2 ** 31 - 1, 2 ** 31 - 1]);
  });

  const at = (ms: number) => timestampFromNs(BigInt(ms) * 1_000_000n);
  const result = (ms: number, exitCode: number): container.HealthResult => ({
    ...{ start: at(ms), end: at(ms + 1), exitCode, output: '' },
  });
  const stateOf = (health: container.Health | undefined): container.ContainerState =>
    container.ContainerState.fromPartial({ startedAt: at(1000), health });

  it('healthy at the first success, unhealthy after failures in a row, and back', () => {
    const config = configOf(['CMD', 'x'], { retries: 2n });
    const check = checkOf(config);
    let health = healthAtStart(config);
    const probe = (exitCode: number): string => {
      health = healthAfter(check, stateOf(health), result(2000, exitCode));
      return `${health.status} ${health.failingStreak}`;
    };
    expect([1, 0, 1, 1, 3, 0].map(probe)).toEqual([
      ...['starting 1', 'healthy 0', 'healthy 1', 'unhealthy 2', 'unhealthy 3', 'healthy 0'],
    ]);
    expect(health?.log).toHaveLength(5);
  });

  it('failures in the start period do not count, a success ends it, probes come faster in it', () => {
    const config = configOf(['CMD', 'x'], {
      retries: 1n,
      startPeriodNs: 10_000_000_000n,
      startIntervalNs: 1_000_000_000n,
    });
    const check = checkOf(config);
    const started = stateOf(healthAtStart(config));
    expect(nextProbeMs(check, started, 2000)).toBe(1000);
    expect(healthAfter(check, started, result(5000, 1))).toMatchObject({ status: 'starting', failingStreak: 0 });
    expect(healthAfter(check, started, result(12_000, 1))).toMatchObject({ status: 'unhealthy', failingStreak: 1 });
    const healthy = healthAfter(check, started, result(5000, 0));
    expect(nextProbeMs(check, stateOf(healthy), 6000)).toBe(30_000);
    expect(healthAfter(check, stateOf(healthy), result(6000, 1))).toMatchObject({ status: 'unhealthy' });
  });
});
