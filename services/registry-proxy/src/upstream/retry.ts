import { setTimeout as delay } from 'node:timers/promises';
import { RegistryError } from './registry-error.js';

export interface RetryRules {
  /** All tries together. Changes with the configuration: read it when it is needed. */
  readonly attempts: number;
  /** Before the second try; doubled for each further one. */
  readonly firstDelayMs: number;
  readonly maxDelayMs: number;
}

/** How long to wait after try number `attempt` failed: what Retry-After asks for, within bounds, else doubling. */
export function retryDelayMs(rules: RetryRules, attempt: number, error: unknown): number {
  const asked = error instanceof RegistryError ? error.retryAfterMs : undefined;
  return Math.min(asked ?? rules.firstDelayMs * 2 ** (attempt - 1), rules.maxDelayMs);
}

/** Wait before the next try. Rejects with the signal's reason when it fires. */
export async function backoff(rules: RetryRules, attempt: number, error: unknown, signal?: AbortSignal): Promise<void> {
  await delay(retryDelayMs(rules, attempt, error), undefined, signal === undefined ? {} : { signal });
}
