import { readFileSync } from 'node:fs';
import { hasCode } from './sys-error.js';

/**
 * When a process started, in clock ticks since boot: with its id it names a process for good.
 * Undefined when there is none; a zombie counts as one.
 */
export function processStartTime(pid: number | 'self'): number | undefined {
  let stat: string;
  try {
    stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
  } catch (error) {
    if (hasCode(error, 'ENOENT', 'ESRCH')) return undefined;
    throw error;
  }
  // The name in parentheses may hold spaces and parentheses; the 22nd field is the 20th after it.
  return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19]);
}
