import { setTimeout as delay } from 'node:timers/promises';

/** Resolves after `ms`, or when the signal fires. */
export async function pause(ms: number, signal: AbortSignal): Promise<void> {
  await delay(ms, undefined, { signal }).catch(() => undefined);
}
