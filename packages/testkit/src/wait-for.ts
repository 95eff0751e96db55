import { setTimeout as delay } from 'node:timers/promises';
import { messageOf } from '@flotilla/errors';

export interface WaitOptions {
  timeoutMs?: number;
  /** Completes "timed out waiting for ...". */
  what: string;
  intervalMs?: number;
}

/**
 * Wait until `condition` gives something other than false or undefined, and return that.
 * A condition that throws counts as not met; its last error is the cause of the time-out.
 */
export async function waitFor<T>(
  condition: () => T | Promise<T>,
  { timeoutMs = 20_000, what, intervalMs = 10 }: WaitOptions,
): Promise<Exclude<T, false | undefined>> {
  const deadline = Date.now() + timeoutMs;
  let lastError: unknown;
  for (;;) {
    try {
      const result = await condition();
      if (result !== false && result !== undefined) return result as Exclude<T, false | undefined>;
      lastError = undefined;
    } catch (error) {
      lastError = error;
    }
    if (Date.now() >= deadline) {
      const last = lastError === undefined ? '' : `; last: ${messageOf(lastError)}`;
      throw new Error(`timed out after ${timeoutMs} ms waiting for ${what}${last}`, { cause: lastError });
    }
    await delay(intervalMs);
  }
}
