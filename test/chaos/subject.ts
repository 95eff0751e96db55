import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { waitFor } from '@flotilla/testkit';
import type { CommandResult, TestEngine } from '../e2e/test-engine.js';

/** What the engine says of a container. */
export interface Seen {
  readonly id: string;
  readonly status: string;
  readonly pid: number;
  readonly exitCode: number;
}

/** The container that a round does something to. */
export const SUBJECT = 'subject';

/** Numbers its lines, one each 10 ms, and ends at once when it is told to. */
const COUNTING = 'trap "exit 0" TERM; i=0; while :; do echo $i; i=$((i+1)); sleep 0.01; done';

const createArguments = [
  ...['create', '--name', SUBJECT, '-v', `${SUBJECT}:/v`, '-p', '0:80', '--stop-timeout', '1'],
  ...['busybox', 'sh', '-c', COUNTING],
];

/** What happens to the subject when the kill comes. */
export interface Phase {
  readonly name: string;
  /** How far the subject is before it. */
  readonly from: 'nothing' | 'created' | 'running';
  /** The command that is interrupted; none for idleness. */
  readonly command: readonly string[] | undefined;
  /** How long the command takes undisturbed, about: the kill comes within it. */
  readonly spanMs: number;
  /** Status that an undisturbed command leaves; `gone` without a container. */
  readonly leaves: 'created' | 'running' | 'exited' | 'gone';
  /** What the command may end with when the engine keeps its promise that requests succeed. */
  readonly exitCodes: readonly number[];
}

/** Every phase of a container's life. */
export const phases: readonly Phase[] = [
  { name: 'idle', from: 'running', command: undefined, spanMs: 50, leaves: 'running', exitCodes: [] },
  { name: 'creating', from: 'nothing', command: createArguments, spanMs: 150, leaves: 'created', exitCodes: [0] },
  { name: 'starting', from: 'created', command: ['start', SUBJECT], spanMs: 300, leaves: 'running', exitCodes: [0] },
  {
    name: 'exec running',
    from: 'running',
    command: ['exec', SUBJECT, 'sh', '-c', 'sleep 0.5; exit 7'],
    spanMs: 500,
    leaves: 'running',
    // Its stream breaks off with the service that carries it; the process itself goes on.
    exitCodes: [7, 0, 1],
  },
  {
    name: 'attached with output flowing',
    from: 'running',
    command: ['attach', '--no-stdin', '--sig-proxy=false', SUBJECT],
    spanMs: 200,
    leaves: 'running',
    exitCodes: [],
  },
  { name: 'stopping', from: 'running', command: ['stop', SUBJECT], spanMs: 300, leaves: 'exited', exitCodes: [0] },
  { name: 'removing', from: 'running', command: ['rm', '-f', SUBJECT], spanMs: 300, leaves: 'gone', exitCodes: [0] },
  {
    name: 'restarting',
    from: 'running',
    command: ['restart', '-t', '0', SUBJECT],
    spanMs: 500,
    leaves: 'running',
    exitCodes: [0],
  },
];

/** Bring the subject to where a phase begins. */
export async function prepareSubject(t: TestEngine, { from }: Phase): Promise<void> {
  if (from === 'nothing') return;
  await t.ok(...createArguments);
  if (from === 'running') await t.ok('start', SUBJECT);
}

/** What the engine says of a container now; undefined when it has none of that name. */
export async function look(t: TestEngine, name: string): Promise<Seen | undefined> {
  const format = '{{.Id}} {{.State.Status}} {{.State.Pid}} {{.State.ExitCode}}';
  const { code, stdout, stderr } = await t.docker(['container', 'inspect', '-f', format, name]);
  if (code !== 0) {
    if (/No such container/i.test(stderr)) return undefined;
    throw new Error(stderr);
  }
  const [id = '', status = '', pid, exitCode] = stdout.trim().split(' ');
  return { id, status, pid: Number(pid), exitCode: Number(exitCode) };
}

/**
 * Wait until what the engine says of the subject is what the machine shows: a running container has its process and takes commands, any other
 * has neither process nor shim.
 */
export async function settled(t: TestEngine): Promise<Seen | undefined> {
  return waitFor(
    async () => {
      const seen = await look(t, SUBJECT);
      if (seen === undefined) return { seen };
      const processes = processesOf(seen.id);
      switch (seen.status) {
        case 'running': {
          if (!processes.includes(seen.pid))
            throw new Error(`process ${seen.pid} of ${JSON.stringify(seen)} is missing`);
          const answer: CommandResult = await t.docker(['exec', SUBJECT, 'echo', 'alive']);
          if (answer.stdout !== 'alive\n') throw new Error(`exec: ${answer.code} ${answer.stderr}`);
          return { seen };
        }
        case 'created':
        case 'exited':
          if (processes.length > 0) throw new Error(`${JSON.stringify(seen)} has processes ${processes.join(' ')}`);
          return { seen };
        default:
          throw new Error(`status ${seen.status} does not last`);
      }
    },
    { what: 'the truth about the subject', timeoutMs: 40_000, intervalMs: 100 },
  ).then(({ seen }) => seen);
}

/** Remove the subject and its volume, as far as there are any. */
export async function removeSubject(t: TestEngine): Promise<void> {
  const removed = await t.docker(['rm', '-fv', SUBJECT]);
  if (removed.code !== 0 && !/No such container/i.test(removed.stderr)) throw new Error(removed.stderr);
  await t.ok('volume', 'rm', '-f', SUBJECT);
}

/** Processes in the cgroups of a container, and its shim. */
export function processesOf(id: string): number[] {
  return readdirSync('/proc')
    .filter((entry) => /^\d+$/.test(entry))
    .filter((entry) => read(`/proc/${entry}/cgroup`).includes(id) || isShimOf(entry, id))
    .map(Number);
}

/** The shim of a container. */
export function shimOf(id: string): number | undefined {
  return readdirSync('/proc')
    .filter((entry) => /^\d+$/.test(entry) && isShimOf(entry, id))
    .map(Number)[0];
}

const isShimOf = (entry: string, id: string): boolean => {
  const commandLine = read(`/proc/${entry}/cmdline`);
  return commandLine.includes('containerd-shim') && commandLine.includes(id) && existsSync(`/proc/${entry}/exe`);
};

function read(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return ''; // it has ended meanwhile
  }
}
