import { conflict } from '@flotilla/errors';

/** Every state a container can be in, in Docker's words; `creating` is never shown. */
export const containerStates = [
  'creating',
  'created',
  'running',
  'paused',
  'restarting',
  'removing',
  'exited',
  'dead',
] as const;

export type ContainerState = (typeof containerStates)[number];

/**
 * What may follow what. This table is the whole state machine: `transition` is the only way to a new state.
 *
 * - `creating`: id and name are reserved; image layer and volume references are being made. A crash undoes it.
 * - `created`: never started, or the first start failed.
 * - `running`: a task exists; `paused` is running with its cgroup frozen.
 * - `restarting`: the task ended and the restart policy will start it again after a delay.
 * - `exited`: the task ended.
 * - `removing`: a removal with recorded options is under way. A crash finishes it.
 * - `dead`: a removal could not be finished, or the container is in quarantine: what it is made of is gone or cannot be read. Removing it is
 *   possible at any time; one that only misses something comes back when that is there again.
 */
const successors: Readonly<Record<ContainerState, readonly ContainerState[]>> = {
  creating: ['created', 'dead'],
  created: ['running', 'removing', 'dead'],
  running: ['paused', 'restarting', 'exited'],
  paused: ['running', 'restarting', 'exited'],
  restarting: ['running', 'exited', 'dead'],
  exited: ['running', 'restarting', 'removing', 'dead'],
  removing: ['dead'],
  dead: ['removing', 'created', 'exited'],
};

/** Whether `to` may follow `from`. */
export function canFollow(from: ContainerState, to: ContainerState): boolean {
  return successors[from].includes(to);
}

/**
 * The next state, checked.
 *
 * @throws EngineError `conflict` when the table forbids it. Callers give users Docker's sentence before they get here.
 */
export function transition(from: ContainerState, to: ContainerState): ContainerState {
  if (!canFollow(from, to)) throw conflict(`container cannot go from ${from} to ${to}`);
  return to;
}

/** Whether a task exists. */
export function isLive(state: ContainerState): boolean {
  return state === 'running' || state === 'paused';
}

/** Whether `wait` with condition `not-running` is over. */
export function isNotRunning(state: ContainerState): boolean {
  return !isLive(state) && state !== 'restarting';
}
