import { container, timestampToDate } from '@flotilla/proto';

/** Docker's defaults: moby/moby daemon/health.go. */
const defaults = { intervalMs: 30_000, timeoutMs: 30_000, startIntervalMs: 5000, retries: 3 };
const keptResults = 5;
/** Node's timers hold no more: 24 days. What is longer would be over at once. */
const maxTimerMs = 2 ** 31 - 1;
const defaultShell: readonly string[] = ['/bin/sh', '-c'];

export interface HealthCheck {
  readonly command: readonly string[];
  readonly intervalMs: number;
  readonly timeoutMs: number;
  readonly startPeriodMs: number;
  readonly startIntervalMs: number;
  /** Failures in a row that make a container unhealthy. */
  readonly retries: number;
}

/** The check of a container; undefined when it has none or it is switched off. */
export function healthCheckOf({ healthcheck, shell }: container.ContainerConfig): HealthCheck | undefined {
  const [kind, ...words] = healthcheck?.test ?? [];
  if (healthcheck === undefined || words.length === 0) return undefined;
  if (kind !== 'CMD' && kind !== 'CMD-SHELL') return undefined;
  const ms = (ns: bigint, otherwise: number): number =>
    ns === 0n ? otherwise : Math.min(Number(ns / 1_000_000n), maxTimerMs);
  return {
    command: kind === 'CMD' ? words : [...(shell.length === 0 ? defaultShell : shell), ...words],
    intervalMs: ms(healthcheck.intervalNs, defaults.intervalMs),
    timeoutMs: ms(healthcheck.timeoutNs, defaults.timeoutMs),
    startPeriodMs: ms(healthcheck.startPeriodNs, 0),
    startIntervalMs: ms(healthcheck.startIntervalNs, defaults.startIntervalMs),
    retries: healthcheck.retries === 0n ? defaults.retries : Number(healthcheck.retries),
  };
}

/** Health at a start; undefined without a check. */
export function healthAtStart(config: container.ContainerConfig): container.Health | undefined {
  return healthCheckOf(config) === undefined ? undefined : { status: 'starting', failingStreak: 0, log: [] };
}

/** Milliseconds until the next probe. */
export function nextProbeMs(check: HealthCheck, state: container.ContainerState, nowMs: number): number {
  const isStarting = state.health?.status === 'starting' && startedForMs(state, nowMs) < check.startPeriodMs;
  return isStarting ? Math.min(check.startIntervalMs, check.intervalMs) : check.intervalMs;
}

/** Health after a probe. Failures while a container starts do not count. */
export function healthAfter(
  check: HealthCheck,
  state: container.ContainerState,
  result: container.HealthResult,
): container.Health {
  const { status, failingStreak, log } = state.health ?? { status: 'starting', failingStreak: 0, log: [] };
  const kept = [...log, result].slice(-keptResults);
  if (result.exitCode === 0) return { status: 'healthy', failingStreak: 0, log: kept };
  const probedAtMs = result.start === undefined ? 0 : timestampToDate(result.start).getTime();
  if (status === 'starting' && startedForMs(state, probedAtMs) < check.startPeriodMs) {
    return { status, failingStreak, log: kept };
  }
  const streak = failingStreak + 1;
  return { status: streak >= check.retries ? 'unhealthy' : status, failingStreak: streak, log: kept };
}

function startedForMs({ startedAt }: container.ContainerState, nowMs: number): number {
  return startedAt === undefined ? 0 : nowMs - timestampToDate(startedAt).getTime();
}
