export type Health = 'SERVING' | 'NOT_SERVING' | 'UNREACHABLE';

/** How often a process is asked that serves. */
export const intervalMs = 2500;
const silentLimitMs = 10_000;
// A service listens only after its store is open; a big one may have much to read.
const startLimitMs = 60_000;

/** Wakes whoever waits for it; one that is rung before is heard at once. */
export class Bell {
  #isRung = false;
  #wake: () => void = () => undefined;

  ring(): void {
    this.#isRung = true;
    this.#wake();
  }

  /** @returns whether it was rung, within this time and before the signal fired. */
  async wait(limitMs: number, signal: AbortSignal): Promise<boolean> {
    if (!this.#isRung && !signal.aborted) {
      await new Promise<void>((resolve) => {
        const done = () => {
          clearTimeout(timer);
          signal.removeEventListener('abort', done);
          resolve();
        };
        const timer = setTimeout(done, limitMs);
        signal.addEventListener('abort', done, { once: true });
        this.#wake = done;
      });
    }
    const isRung = this.#isRung;
    this.#isRung = false;
    return isRung;
  }
}

export interface HealthWatchOptions {
  /** Asks once; answers within a few seconds. */
  readonly check: () => Promise<Health>;
  /** Rung when the process itself says that it serves: it is not asked then. */
  readonly serves: Bell;
  /** How often a process is asked that has said nothing yet. */
  readonly startIntervalMs: number;
  /** Number of the process that answers; undefined while it is down. */
  readonly pid: () => number | undefined;
  /** Called when a living process has answered nothing for too long. */
  readonly onSilent: () => void;
  readonly onChange: (health: Health) => void;
  readonly signal: AbortSignal;
}

/** Watch a process until the signal fires: it says when it serves, and is asked every 2.5 s whether it still does. */
export async function watchHealth(options: HealthWatchOptions): Promise<void> {
  const { check, serves, startIntervalMs, pid, onSilent, onChange, signal } = options;
  let health: Health = 'UNREACHABLE';
  let watched = pid();
  let hasAnswered = false;
  let lastAnswerAt = performance.now();
  // The launcher may itself have been suspended: silence counts only when it was really asked.
  let unanswered = 0;
  let pauseMs = startIntervalMs;
  while (!signal.aborted) {
    const isTold = await serves.wait(pauseMs, signal);
    if (aborted(signal)) return;
    const askedOf = pid();
    if (askedOf !== watched) {
      watched = askedOf;
      hasAnswered = false;
      lastAnswerAt = performance.now();
      unanswered = 0;
    }
    const now = isTold ? 'SERVING' : askedOf === undefined ? 'UNREACHABLE' : await check();
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
    pauseMs = now === 'SERVING' ? intervalMs : now === 'UNREACHABLE' && hasAnswered ? 250 : startIntervalMs;
  }
}

const aborted = (signal: AbortSignal) => signal.aborted;
