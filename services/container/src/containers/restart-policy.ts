import { invalidArgument } from '@flotilla/errors';

export type RestartPolicyName = 'no' | 'always' | 'unless-stopped' | 'on-failure';

export interface RestartPolicy {
  name: RestartPolicyName;
  /** 0 means no limit; only `on-failure` may have one. */
  maximumRetryCount: number;
}

const firstDelayMs = 100;
const longestDelayMs = 60_000;
/** A task that ran this long starts the back-off anew. */
const stableAfterMs = 10_000;

/**
 * Check a restart policy as dockerd does; the empty name means `no`.
 *
 * @throws EngineError `invalidArgument`.
 */
export function parseRestartPolicy(name: string, maximumRetryCount: number): RestartPolicy {
  switch (name) {
    case '':
    case 'no':
    case 'always':
    case 'unless-stopped':
      if (maximumRetryCount !== 0) {
        const negative = maximumRetryCount < 0 ? ' and cannot be negative' : '';
        throw invalidArgument(
          `invalid restart policy: maximum retry count can only be used with 'on-failure'${negative}`,
        );
      }
      return { name: name === '' ? 'no' : name, maximumRetryCount: 0 };
    case 'on-failure':
      if (maximumRetryCount < 0) {
        throw invalidArgument('invalid restart policy: maximum retry count cannot be negative');
      }
      return { name, maximumRetryCount };
    default:
      throw invalidArgument(
        `invalid restart policy: unknown policy '${name}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'`,
      );
  }
}

export interface EndedTask {
  exitCode: number;
  /** How long it ran. */
  ranForMs: number;
  /** Restarts by policy so far, this series. */
  restartCount: number;
  /** Delay before the previous restart; 0 if there was none. */
  previousDelayMs: number;
  /** A user (or the engine's stop) ended it. */
  stoppedByUser: boolean;
}

/** What the policy says about a task that ended: start again after `delayMs`, or `undefined`. */
export function decideRestart(policy: RestartPolicy, ended: EndedTask): { delayMs: number } | undefined {
  if (ended.stoppedByUser || !policyWants(policy, ended)) return undefined;
  const stable = ended.ranForMs >= stableAfterMs || ended.previousDelayMs === 0;
  return { delayMs: stable ? firstDelayMs : Math.min(ended.previousDelayMs * 2, longestDelayMs) };
}

function policyWants(policy: RestartPolicy, ended: Pick<EndedTask, 'exitCode' | 'restartCount'>): boolean {
  switch (policy.name) {
    case 'no':
      return false;
    case 'always':
    case 'unless-stopped':
      return true;
    case 'on-failure':
      return ended.exitCode !== 0 && (policy.maximumRetryCount === 0 || ended.restartCount < policy.maximumRetryCount);
  }
}

/**
 * Whether a container that does not run is started with the engine: `always` in any case once it has been started, `unless-stopped` unless a
 * user stopped it, `on-failure` when it failed, no user stopped it, and it has tries left.
 */
export function startsWithEngine(
  policy: RestartPolicy,
  last: { hasBeenStarted: boolean; stoppedByUser: boolean; exitCode: number; restartCount: number },
): boolean {
  if (!last.hasBeenStarted) return false;
  switch (policy.name) {
    case 'no':
      return false;
    case 'always':
      return true;
    case 'unless-stopped':
      return !last.stoppedByUser;
    case 'on-failure':
      return !last.stoppedByUser && policyWants(policy, last);
  }
}
