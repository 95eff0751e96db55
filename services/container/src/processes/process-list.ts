import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { conflict, internal, invalidArgument, messageOf } from '@flotilla/errors';
import type { ContainerContext } from '../containers/context.js';
import { stateOf } from '../store/container-record.js';

const run = promisify(execFile);

export interface ProcessList {
  readonly titles: string[];
  readonly processes: string[][];
}

const defaultArguments = '-ef';
const limitMs = 10_000;
const maxOutputBytes = 16 << 20;

/**
 * `docker top`: what the host's ps says of the container's processes.
 *
 * @throws EngineError `conflict` unless it runs; `invalidArgument` for ps arguments that hide or rename the PID.
 */
export async function listProcesses(
  { store, tasks }: ContainerContext,
  name: string,
  psArgs: string,
): Promise<ProcessList> {
  const record = store.resolve(name);
  const { id } = record.container;
  const state = stateOf(record);
  const task = tasks.get(id);
  if (state === 'restarting') throw conflict(`Container ${id} is restarting, wait until the container is running`);
  if (task === undefined || (state !== 'running' && state !== 'paused')) {
    throw conflict(`container ${id} is not running`);
  }
  refuseRenamedPid(psArgs);
  const pids = await task.pids();
  const words = (psArgs.trim() === '' ? defaultArguments : psArgs.trim()).split(/\s+/);
  return parseProcessList(await callPs(words), new Set(pids));
}

/** `-o user=PID` would put something else under the title that is looked for: moby/moby daemon/top_unix.go, validatePSArgs. */
function refuseRenamedPid(psArgs: string): void {
  for (const [, title = '', shown = ''] of psArgs.matchAll(/\s+(\S*)=\s*(PID\S*)/g)) {
    if (title !== 'pid') throw invalidArgument(`specifying "${title}=${shown}" is not allowed`);
  }
}

async function callPs(words: readonly string[]): Promise<string> {
  try {
    const { stdout } = await run('ps', [...words], { timeout: limitMs, maxBuffer: maxOutputBytes });
    return stdout;
  } catch (cause) {
    const stderr = cause instanceof Error && 'stderr' in cause ? String(cause.stderr).trim() : '';
    const [line = ''] = stderr.split('\n', 1);
    throw internal(`ps: ${line === '' ? messageOf(cause) : line}`, { cause });
  }
}

/**
 * The lines of ps's output whose process is one of `pids`. The last column takes the rest of the line, one space between words.
 *
 * @throws EngineError `internal` without a PID column.
 */
export function parseProcessList(output: string, pids: ReadonlySet<number>): ProcessList {
  const [head = '', ...lines] = output.split('\n');
  const titles = head.trim().split(/\s+/);
  const column = titles.indexOf('PID');
  if (column < 0) throw internal("Couldn't find PID field in ps output");
  const processes: string[][] = [];
  let isOfContainer = false;
  for (const line of lines) {
    if (line.trim() === '') continue;
    const fields = line.trim().split(/\s+/);
    // Threads of a process (`ps m`) follow it with `-` in the place of the number.
    isOfContainer = fields[column] === '-' ? isOfContainer : pids.has(Number(fields[column]));
    if (!isOfContainer) continue;
    const last = titles.length - 1;
    processes.push([...fields.slice(0, last), fields.slice(last).join(' ')]);
  }
  return { titles, processes };
}
