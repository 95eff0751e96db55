import { readFileSync, writeFileSync } from 'node:fs';
import { messageOf } from '@flotilla/errors';
import type { Logger } from '@flotilla/log';

/** As dockerd's unit file: when memory runs out, containers (0) are killed before the engine. */
const defaultScore = -500;

/** What the launcher's oom_score_adj becomes, undefined: it stays. Without a setting it is never raised. */
export function wantedOomScore(current: number, configured: number | undefined): number | undefined {
  const wanted = configured ?? Math.min(current, defaultScore);
  return wanted === current ? undefined : wanted;
}

/** Adjust this process, and with it every service that it starts. Without the privilege everything goes on as it was. */
export function adjustOomScore(configured: number | undefined, log: Logger, file = '/proc/self/oom_score_adj'): void {
  try {
    const wanted = wantedOomScore(Number(readFileSync(file, 'utf8')), configured);
    if (wanted !== undefined) writeFileSync(file, String(wanted));
  } catch (error) {
    log.warn({ reason: messageOf(error) }, 'oom score not adjusted');
  }
}
