import { type StdioOptions, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { shim } from '@flotilla/proto';
import { parseShimAddress, SHIM_NAMESPACE } from './shim-client.js';

export interface ShimProgram {
  /** Path of containerd-shim-runc-v2. */
  readonly path: string;
  /** Keeps engines apart: it is part of the hash that names the shim's socket. */
  readonly execRoot: string;
  /** Socket of our events server. */
  readonly eventsPath: string;
}

const START_LIMIT_MS = 30_000;
const DELETE_LIMIT_MS = 60_000;

/**
 * Descriptors that the shim inherits start here: it keeps the read ends of its own output FIFOs open without knowing it, so that what is in
 * them outlives this process. High numbers, because Go moves its own descriptors to the lowest free ones over what it inherited.
 */
const FIRST_INHERITED_FD = 20;

/**
 * Start the shim of a container.
 * `heldFds` stay open in it as long as it lives. Returns its address as it printed it.
 * @throws Error with what the shim printed.
 */
export async function startShim(
  program: ShimProgram,
  id: string,
  bundle: string,
  heldFds: readonly number[],
): Promise<string> {
  // The shim dies silently without its log file.
  writeFileSync(join(bundle, 'log'), '', { flag: 'a' });
  const args = [...commonArguments(program, id), 'start'];
  const { stdout } = await runShim(program, args, bundle, START_LIMIT_MS, heldFds);
  const address = stdout.toString().trim();
  parseShimAddress(address);
  return address;
}

/** What the shim's own `delete` found: when the process was killed by it, 137. */
export interface ShimDeletion {
  readonly exitCode: number;
}

/**
 * Kill and remove whatever is left of a container whose shim is dead (or never came up): processes, cgroup, runtime state, the shim's socket.
 * Idempotent. A shim that still lives is killed first.
 */
export async function deleteDeadShim(program: ShimProgram, id: string, bundle: string): Promise<ShimDeletion> {
  killLeftShim(id, bundle);
  const args = [...commonArguments(program, id), '-bundle', bundle, 'delete'];
  let exitCode = 137;
  try {
    const { stdout } = await runShim(program, args, bundle, DELETE_LIMIT_MS, []);
    exitCode = shim.DeleteResponse.decode(stdout).exitStatus || 137;
  } finally {
    removeShimSocket(bundle);
  }
  return { exitCode };
}

function commonArguments(program: ShimProgram, id: string): string[] {
  return [
    '-namespace',
    SHIM_NAMESPACE,
    '-id',
    id,
    '-address',
    join(program.execRoot, 'containerd.sock'),
    '-publish-binary',
    '/bin/false',
  ];
}

async function runShim(
  program: ShimProgram,
  args: readonly string[],
  bundle: string,
  limitMs: number,
  heldFds: readonly number[],
): Promise<{ stdout: Buffer }> {
  const stdio: StdioOptions = ['ignore', 'pipe', 'pipe'];
  if (heldFds.length > 0) {
    while (stdio.length < FIRST_INHERITED_FD) stdio.push('ignore');
    stdio.push(...heldFds);
  }
  const child = spawn(program.path, args, {
    cwd: bundle,
    stdio,
    timeout: limitMs,
    killSignal: 'SIGKILL',
    env: {
      PATH: process.env['PATH'] ?? '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
      TTRPC_ADDRESS: program.eventsPath,
      GRPC_ADDRESS: join(program.execRoot, 'containerd.sock'),
      NAMESPACE: SHIM_NAMESPACE,
      GOMAXPROCS: '2',
    },
  });
  const stdout: Buffer[] = [];
  let stderr = '';
  child.stdout?.on('data', (chunk: Buffer) => stdout.push(chunk));
  child.stderr?.on('data', (chunk: Buffer) => (stderr = (stderr + chunk.toString()).slice(-4096)));
  const [code, signal] = (await once(child, 'close')) as [number | null, NodeJS.Signals | null];
  if (code !== 0) {
    const how = signal === null ? `exit code ${String(code)}` : `signal ${signal}`;
    throw new Error(`${args.at(-1) ?? ''} of the shim failed (${how}): ${stderr.trim()}`);
  }
  return { stdout: Buffer.concat(stdout) };
}

/** The runtime's state outlives a shim that was killed, so a shim in `shim.pid` may also be one that hangs. */
function killLeftShim(id: string, bundle: string): void {
  const pid = Number(readIfThere(join(bundle, 'shim.pid')));
  if (!Number.isInteger(pid) || pid <= 1) return;
  // The pid may belong to another process by now.
  if (!readIfThere(`/proc/${pid}/cmdline`).split('\0').includes(id)) return;
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // It ended by itself.
  }
}

function removeShimSocket(bundle: string): void {
  const address = readIfThere(join(bundle, 'address'));
  if (address === '') return;
  const { socketPath } = parseShimAddress(address);
  rmSync(socketPath, { force: true });
}

function readIfThere(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}

/**
 * Put the shim of a container into a cgroup of its own, where no stop of a service's unit or pod takes it along: below the unified hierarchy where there
 * is one, else below systemd's. Does nothing where neither is mounted.
 */
export function moveShimToCgroup(bundle: string, cgroup: string): void {
  const pid = readIfThere(join(bundle, 'shim.pid')).trim();
  if (pid === '') return;
  for (const root of ['/sys/fs/cgroup', '/sys/fs/cgroup/unified', '/sys/fs/cgroup/systemd']) {
    if (readIfThere(join(root, 'cgroup.procs')) === '' && readIfThere(join(root, 'cgroup.controllers')) === '')
      continue;
    const directory = join(root, cgroup);
    mkdirSync(directory, { recursive: true });
    writeFileSync(join(directory, 'cgroup.procs'), pid);
  }
}
