import { hasCode } from '@flotilla/sys';

/** SIGKILL, to a process that may have ended by itself meanwhile. */
export function killProcess(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch (error) {
    if (!hasCode(error, 'ESRCH')) throw error;
  }
}
