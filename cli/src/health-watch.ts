import { setTimeout as delay } from 'node:timers/promises';
import type { Logger } from '@flotilla/log';
import { rpcHealth } from '@flotilla/proto';
import { connect } from '@flotilla/rpc';

export type Health = 'SERVING' | 'NOT_SERVING' | 'UNREACHABLE';

const { SERVING } = rpcHealth.HealthCheckResponse_ServingStatus;
const checkDeadlineMs = 2500;
const startIntervalMs = 25;
const intervalMs = 2500;
const silentLimitMs = 10_000;
// A service listens only after its store is open; a big one may have much to read.
const startLimitMs = 60_000;

/** Ask a service once. */
export async function checkHealth(client: HealthClient): Promise<Health> {
  try {
    const { status } = await client.check({ service: '' }, { deadlineMs: checkDeadlineMs, retryUnavailableMs: 0 });
    return status === SERVING ? 'SERVING' : 'NOT_SERVING';
  } catch {
    return 'UNREACHABLE';
  }
}

export type HealthClient = ReturnType<typeof healthClient>;

export const healthClient = (address: string, log: Logger) => connect(rpcHealth.HealthService, address, { log });

export interface HealthWatchOptions {
  /** Asks once; answers within a few seconds. */
  readonly check: () => Promise<Health>;
  /** Number of the process that answers; undefined while it is down. */
  readonly pid: () => number | undefined;
  /** Called when a living process has answered nothing for too long. */
  readonly onSilent: () => void;
  readonly onChange: (health: Health) => void;
  readonly signal: AbortSignal;
}

/** Ask a process until the signal fires: often until it serves, then every 2.5 s. */
export async function watchHealth({ check, pid, onSilent, onChange, signal }: HealthWatchOptions): Promise<void> {
  let health: Health = 'UNREACHABLE';
  let watched = pid();
  let hasAnswered = false;
  let lastAnswerAt = performance.now();
  // The launcher may itself have been suspended: silence counts only when it was really asked.
  let unanswered = 0;
  while (!signal.aborted) {
    const askedOf = pid();
    if (askedOf !== watched) {
      watched = askedOf;
      hasAnswered = false;
      lastAnswerAt = performance.now();
      unanswered = 0;
    }
    const now = askedOf === undefined ? 'UNREACHABLE' : await check();
    if (now === 'UNREACHABLE') unanswered += 1;
    else {
      hasAnswered = true;
      lastAnswerAt = performance.now();
      unanswered = 0;
    }
    if (now !== health) onChange((health = now));
    const limitMs = hasAnswered ? silentLimitMs : startLimitMs;
    if (askedOf !== undefined && askedOf === pid() && unanswered >= 3 && performance.now() - lastAnswerAt > limitMs) {
      onSilent();
      lastAnswerAt = performance.now();
      unanswered = 0;
    }
    const pauseMs = now === 'SERVING' ? intervalMs : now === 'UNREACHABLE' && hasAnswered ? 250 : startIntervalMs;
    await delay(pauseMs, undefined, { signal }).catch(() => undefined);
  }
}
