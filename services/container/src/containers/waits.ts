import { isEngineError, notFound } from '@flotilla/errors';
import type { ContainerRecord } from '../store/container-record.js';
import { stateOf } from '../store/container-record.js';
import type { ContainerContext } from './context.js';
import { isNotRunning } from './state.js';

export type WaitCondition = 'not-running' | 'next-exit' | 'removed';

export interface WaitOutcome {
  exitCode: number;
  error: string;
}

export interface StartedWait {
  containerId: string;
  /** Exits so far. */
  exitSequence: number;
  outcome: Promise<WaitOutcome>;
}

/**
 * Begin to wait. `resumeAfter` is the `exitSequence` of an interrupted wait: exits since then count, also those of a container that was
 * removed meanwhile.
 *
 * @throws EngineError `notFound`.
 */
export function beginWait(
  context: ContainerContext,
  name: string,
  condition: WaitCondition,
  resumeAfter: number | undefined,
  signal: AbortSignal,
): StartedWait {
  const record = findOrUndefined(context, name);
  if (record === undefined) {
    const buried = resumeAfter === undefined ? undefined : context.store.tombstone(name);
    if (buried === undefined) throw notFound(`No such container: ${name}`);
    const outcome = Promise.resolve({ exitCode: buried.exitCode, error: buried.error });
    return { containerId: name, exitSequence: buried.exitSequence, outcome };
  }
  const { id } = record.container;
  const base = resumeAfter ?? record.internals.exitSequence;
  let last = outcomeOf(record);
  const test = (now: ContainerRecord | undefined): WaitOutcome | undefined => {
    if (now === undefined) {
      const buried = context.store.tombstone(id);
      return buried === undefined ? last : { exitCode: buried.exitCode, error: buried.error };
    }
    last = outcomeOf(now);
    return isOver(now, condition, base, resumeAfter !== undefined) ? last : undefined;
  };
  return { containerId: id, exitSequence: base, outcome: context.watchpoints.until(id, test, signal) };
}

function isOver(record: ContainerRecord, condition: WaitCondition, base: number, resumed: boolean): boolean {
  const hasExited = record.internals.exitSequence > base;
  switch (condition) {
    case 'removed':
      return stateOf(record) === 'dead';
    case 'next-exit':
      return hasExited;
    case 'not-running':
      return isNotRunning(stateOf(record)) || (resumed && hasExited);
  }
}

function outcomeOf(record: ContainerRecord): WaitOutcome {
  const { exitCode, error } = record.container.state;
  return { exitCode, error };
}

function findOrUndefined(context: ContainerContext, name: string): ContainerRecord | undefined {
  try {
    return context.store.resolve(name);
  } catch (error) {
    if (isEngineError(error, 'notFound')) return undefined;
    throw error;
  }
}
