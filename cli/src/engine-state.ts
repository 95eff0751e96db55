import { closeSync, fsyncSync, mkdirSync, openSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { Health } from './health-watch.js';
import type { ProcessIdentity } from './process-identity.js';

/** One process of the engine as the launcher knows it. */
export interface ProcessState {
  readonly service: string;
  /** Absent while it is down. */
  readonly process: ProcessIdentity | undefined;
  readonly address: string;
  readonly restarts: number;
  /** What the launcher saw last; services are asked anew. */
  readonly health: Health;
}

/** What the launcher writes down for `flotilla status` and for the launcher after it. */
export interface EngineState {
  readonly launcher: ProcessIdentity;
  readonly version: string;
  readonly engineId: string;
  readonly dataRoot: string;
  readonly execRoot: string;
  readonly processes: readonly ProcessState[];
}

/** `<exec-root>/engine.json`, where `flotilla status` finds the engine. */
export const statePath = (execRoot: string): string => join(execRoot, 'engine.json');
/** `<data-root>/launcher.json`: the same, which also tells the next launcher whose data this is. */
export const dataRecordPath = (dataRoot: string): string => join(dataRoot, 'launcher.json');

/** The state at `path`, or undefined when there is none or none that can be read. */
export function readState(path: string): EngineState | undefined {
  try {
    const state = JSON.parse(readFileSync(path, 'utf8')) as Partial<EngineState>;
    return typeof state.launcher?.pid === 'number' && Array.isArray(state.processes)
      ? (state as EngineState)
      : undefined;
  } catch {
    return undefined;
  }
}

/** Replace both records whole. */
export function writeState(state: EngineState): void {
  const text = JSON.stringify(state, undefined, 2);
  for (const path of [statePath(state.execRoot), dataRecordPath(state.dataRoot)]) writePrivateFile(path, text);
}

/** The engine has stopped and left nothing. */
export function removeState({ execRoot, dataRoot }: Pick<EngineState, 'execRoot' | 'dataRoot'>): void {
  rmSync(statePath(execRoot), { force: true });
  rmSync(dataRecordPath(dataRoot), { force: true });
}

/** Write a file that only root may read, whole or not at all; a durable one is on the disk then. */
export function writePrivateFile(path: string, text: string, { isDurable = false } = {}): void {
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
  const fresh = `${path}.new`;
  try {
    writeFileSync(fresh, text, { mode: 0o600, flush: isDurable });
    renameSync(fresh, path);
    if (isDurable) syncDirectory(dirname(path));
  } catch (error) {
    rmSync(fresh, { force: true });
    throw error;
  }
}

function syncDirectory(path: string): void {
  const fd = openSync(path, 'r');
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}
