import { messageOf } from '@flotilla/errors';
import type { ContainerRecord } from '../store/container-record.js';
import type { ContainerContext } from './context.js';
import { dependenciesAmong, dependentsIn } from './dependencies.js';
import type { Stopper } from './stopper.js';

/** What the engine gives beyond the longest time that a container may take. */
const graceSeconds = 5;

/**
 * Stop every container that runs, whoever depends on others before those. When the time of the whole is over, what is left is killed.
 *
 * @param timeoutSeconds of `shutdown-timeout`; negative: for ever.
 * @returns ids of those that ran.
 */
export async function stopAll(
  context: Pick<ContainerContext, 'store' | 'locks' | 'log'>,
  stopper: Pick<Stopper, 'stopWithEngine' | 'timeoutSecondsOf'>,
  timeoutSeconds: number,
): Promise<string[]> {
  const records = context.store.all();
  const dependents = dependentsIn(dependenciesAmong(records));
  const ran = new Set<string>();
  const timeIsUp = new AbortController();
  // All of them are asked, for one that does not run yet may be about to: the stop waits for its lock.
  const stop = async (id: string): Promise<void> => {
    try {
      const options = timeIsUp.signal.aborted ? kill : { signal: '', timeoutSeconds: undefined };
      if (await stopper.stopWithEngine(id, options)) ran.add(id);
    } catch (error) {
      context.log.warn({ containerId: id, reason: messageOf(error) }, 'container not stopped with the engine');
    }
  };
  const stopping = new Map<string, Promise<void>>();
  const inTurn = (id: string): Promise<void> => {
    const begun = stopping.get(id);
    if (begun !== undefined) return begun;
    const before = [...(dependents.get(id) ?? [])].map(inTurn);
    const stopped = Promise.all(before).then(() => stop(id));
    stopping.set(id, stopped);
    return stopped;
  };
  const all = Promise.all(records.map(({ container }) => inTurn(container.id)));
  const limitSeconds = wholeTimeSeconds(records, stopper, timeoutSeconds);
  const killAll = (): void => {
    context.log.warn({ limitSeconds }, 'containers did not end in time, they are killed');
    timeIsUp.abort();
    for (const { container } of records) void stop(container.id);
  };
  const timer = limitSeconds < 0 ? undefined : setTimeout(killAll, limitSeconds * 1000);
  try {
    await all;
  } finally {
    clearTimeout(timer);
  }
  // What an end brings about (mounts, sandboxes, removal) is done under the lock, while the peers still live.
  await Promise.all([...ran].map((id) => context.locks.run(id, () => Promise.resolve())));
  return [...ran];
}

const kill = { signal: 'KILL', timeoutSeconds: 0 };

/** As dockerd: the setting, or more if a container may take longer. */
function wholeTimeSeconds(
  records: readonly ContainerRecord[],
  stopper: Pick<Stopper, 'timeoutSecondsOf'>,
  configured: number,
): number {
  const own = records.map(({ container }) => stopper.timeoutSecondsOf(container));
  if (configured < 0 || own.some((seconds) => seconds < 0)) return -1;
  return Math.max(configured, ...own.map((seconds) => seconds + graceSeconds));
}
