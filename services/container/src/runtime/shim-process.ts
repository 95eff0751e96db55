import { type StdioOptions, execFile, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { closeSync, existsSync, mkdirSync, openSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { shim } from '@flotilla/proto';
import { spawnSession } from '@flotilla/sys';
import { parseShimAddress, SHIM_NAMESPACE } from './shim-client.js';
import { listenUnix } from './shim-socket.js';

export interface ShimProgram {
  /** Path of containerd-shim-runc-v2. */
  readonly path: string;
  /** Keeps engines apart: the shims' sockets lie in it. */
  readonly execRoot: string;
  /** Socket of our events server. */
  readonly eventsPath: string;
}

/** A shim that was started. */
export interface StartedShim {
  /** As `parseShimAddress` reads it. */
  readonly address: string;
  /** Known when the shim is our own child. */
  readonly pid: number | undefined;
}

const START_LIMIT_MS = 30_000;
const DELETE_LIMIT_MS = 60_000;

/**
 * Descriptors that the shim inherits start here: it keeps the read ends of its own output FIFOs open without knowing it, so that what is in them
 * outlives this process. High numbers, because Go moves its own descriptors to the lowest free ones over what it inherited.
 */
const FIRST_INHERITED_FD = 20;

/** Where our own sockets for shims lie. */
export function shimSocketDirectory(execRoot: string): string {
  return join(execRoot, 's');
}

/** Whether this shim takes its socket as descriptor 3 when it is started without a command (1.6 and 1.7), so that its own `start` can be left out. */
export async function takesListeningSocket(program: ShimProgram): Promise<boolean> {
  const { stdout } = await promisify(execFile)(program.path, ['-v'], { timeout: START_LIMIT_MS });
  return /Version:\s*v?1\.[67]\./.test(stdout);
}

/**
 * Start the shim of a container without its `start` command, which saves a process: the socket is made here. Returns at once; the shim
 * answers as soon as it is up. `heldFds` stay open in it as long as it lives.
 * @throws Error when the program cannot be run or the socket cannot be made.
 */
export function spawnShim(program: ShimProgram, id: string, bundle: string, heldFds: readonly number[]): StartedShim {
  // Not named by the container: the shim of its run before may still be about to remove its own.
  const socketPath = join(shimSocketDirectory(program.execRoot), randomBytes(8).toString('hex'));
  const address = `unix://${socketPath}`;
  writeFileSync(join(bundle, 'address'), address);
  const socketFd = listenUnix(socketPath);
  const logFd = openSync(join(bundle, 'log'), 'a');
  try {
    const pid = runDetached(program, ['-namespace', SHIM_NAMESPACE, '-id', id, '-address', grpcAddress(program)], {
      cwd: bundle,
      descriptors: [undefined, undefined, logFd, socketFd],
      heldFds,
    });
    writeFileSync(join(bundle, 'shim.pid'), String(pid));
    spareAfterUs(pid);
    return { address, pid };
  } catch (error) {
    rmSync(socketPath, { force: true });
    throw error;
  } finally {
    closeSync(socketFd);
    closeSync(logFd);
  }
}

/** In a session of its own: signals to our process group are not for it. */
function runDetached(
  program: ShimProgram,
  args: readonly string[],
  { cwd, descriptors, heldFds }: { cwd: string; descriptors: (number | undefined)[]; heldFds: readonly number[] },
): number {
  const held = heldFds.map((fd, at): [number, number] => [FIRST_INHERITED_FD + at, fd]);
  try {
    return spawnSession({
      path: program.path,
      args,
      env: shimEnvironment(program),
      cwd,
      descriptors: new Map([...descriptors.entries(), ...held]),
    });
  } catch (cause) {
    throw new Error(`${program.path} cannot be run`, { cause });
  }
}

/** As containerd's own start does: when memory runs out, a shim goes after its container and just before us. */
function spareAfterUs(pid: number): void {
  try {
    const ours = Number(readFileSync('/proc/self/oom_score_adj', 'utf8'));
    writeFileSync(`/proc/${pid}/oom_score_adj`, String(Math.min(ours + 1, 1000)));
  } catch {
    // It has ended already, or we may not: what it inherited is as good.
  }
}

/**
 * Start the shim of a container by its `start` command. `heldFds` stay open in it as long as it lives.
 * @throws Error with what the shim printed.
 */
export async function startShim(
  program: ShimProgram,
  id: string,
  bundle: string,
  heldFds: readonly number[],
): Promise<StartedShim> {
  // The shim dies silently without its log file.
  writeFileSync(join(bundle, 'log'), '', { flag: 'a' });
  const stdout = await runShim(program, [...commonArguments(program, id), 'start'], bundle, START_LIMIT_MS, heldFds);
  const address = stdout.toString().trim();
  parseShimAddress(address);
  return { address, pid: undefined };
}

/** The end of what a shim had to say about itself. */
export function shimLogTail(bundle: string): string {
  return readIfThere(join(bundle, 'log')).trim().split('\n').slice(-3).join('; ');
}

/**
 * Kill and remove whatever is left of a container whose shim is dead (or never came up): processes, cgroup, runtime state, the shim's socket. A shim
 * that still lives is killed first. Idempotent.
 */
export async function deleteDeadShim(
  program: ShimProgram,
  id: string,
  bundle: string,
  runtimeBinary = 'runc',
): Promise<void> {
  killLeftShim(program, id, bundle);
  try {
    restoreShimFiles(program, bundle, runtimeBinary);
    const args = [...commonArguments(program, id), '-bundle', bundle, 'delete'];
    shim.DeleteResponse.decode(await runShim(program, args, bundle, DELETE_LIMIT_MS, []));
  } finally {
    removeShimSocket(bundle);
  }
}

/** What `delete` reads of how the container was made: somebody may have deleted it, and the container runs all the same. */
function restoreShimFiles(program: ShimProgram, bundle: string, runtimeBinary: string): void {
  if (existsSync(join(bundle, 'runtime'))) return;
  mkdirSync(bundle, { recursive: true, mode: 0o700 });
  writeFileSync(join(bundle, 'runtime'), runtimeBinary);
  const options = { binary_name: runtimeBinary, root: runtimeRoot(program) };
  writeFileSync(join(bundle, 'options.json'), JSON.stringify(options));
}

/** Where runtimes keep what they know of containers. */
export function runtimeRoot({ execRoot }: Pick<ShimProgram, 'execRoot'>): string {
  return join(execRoot, 'runc');
}

function commonArguments(program: ShimProgram, id: string): string[] {
  const address = grpcAddress(program);
  return ['-namespace', SHIM_NAMESPACE, '-id', id, '-address', address, '-publish-binary', '/bin/false'];
}

function grpcAddress(program: ShimProgram): string {
  return join(program.execRoot, 'containerd.sock');
}

function shimEnvironment(program: ShimProgram): NodeJS.ProcessEnv {
  return {
    PATH: process.env['PATH'] ?? '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
    TTRPC_ADDRESS: program.eventsPath,
    GRPC_ADDRESS: grpcAddress(program),
    NAMESPACE: SHIM_NAMESPACE,
    GOMAXPROCS: '2',
    // For runc, which inherits them and is done before collecting garbage pays: 8 % of the CPU time of a run. The shim sets its own.
    GOGC: 'off',
    GOMEMLIMIT: '64MiB',
  };
}

/** Entries for descriptors from `next` on that leave free what is below `FIRST_INHERITED_FD`. */
function inherited(next: number, fds: readonly number[]): ('ignore' | number)[] {
  if (fds.length === 0) return [];
  return [...Array.from({ length: FIRST_INHERITED_FD - next }, () => 'ignore' as const), ...fds];
}

async function runShim(
  program: ShimProgram,
  args: readonly string[],
  bundle: string,
  limitMs: number,
  heldFds: readonly number[],
): Promise<Buffer> {
  const stdio: StdioOptions = ['ignore', 'pipe', 'pipe', ...inherited(3, heldFds)];
  const env = shimEnvironment(program);
  const child = spawn(program.path, args, { cwd: bundle, stdio, env, timeout: limitMs, killSignal: 'SIGKILL' });
  const stdout: Buffer[] = [];
  let stderr = '';
  child.stdout?.on('data', (chunk: Buffer) => stdout.push(chunk));
  child.stderr?.on('data', (chunk: Buffer) => (stderr = (stderr + chunk.toString()).slice(-4096)));
  const [code, signal] = (await once(child, 'close')) as [number | null, NodeJS.Signals | null];
  if (code !== 0) {
    const how = signal === null ? `exit code ${String(code)}` : `signal ${signal}`;
    throw new Error(`${args.at(-1) ?? ''} of the shim failed (${how}): ${stderr.trim()}`);
  }
  return Buffer.concat(stdout);
}

/** A shim that hangs, or one whose maker was killed: the connection to it broke, the process is there. */
function killLeftShim(program: ShimProgram, id: string, bundle: string): void {
  const known = Number(readIfThere(join(bundle, 'shim.pid')));
  const pid = Number.isInteger(known) && known > 1 ? known : findShim(program, id);
  if (pid === undefined) return;
  // The pid may belong to another process by now.
  if (!isShimOf(program, id, pid)) return;
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // It ended by itself.
  }
}

/** A kill between the start of the shim and the file with its pid leaves only the process itself. */
function findShim(program: ShimProgram, id: string): number | undefined {
  const pids = readdirSync('/proc').filter((name) => /^\d+$/.test(name));
  return pids.map(Number).find((pid) => isShimOf(program, id, pid));
}

function isShimOf(program: ShimProgram, id: string, pid: number): boolean {
  const words = readIfThere(`/proc/${pid}/cmdline`).split('\0');
  return words[0] === program.path && words.includes(id) && words.includes(grpcAddress(program));
}

function removeShimSocket(bundle: string): void {
  removeSocketAt(readIfThere(join(bundle, 'address')));
}

/** Remove the socket of a shim that nobody will call any more; an empty address is fine. */
export function removeSocketAt(address: string): void {
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
