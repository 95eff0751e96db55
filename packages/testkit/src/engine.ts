import { execFile, spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { closeSync, existsSync, mkdirSync, openSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import type { NetworkNamespace } from './network-namespace.js';
import { waitFor } from './wait-for.js';

const run = promisify(execFile);
const program = findProgram(dirname(fileURLToPath(import.meta.url)));
const startLimitMs = 60_000;
const stopLimitMs = 40_000;

/** A row of `flotilla status --json`. */
export interface EngineProcess {
  service: string;
  /** 0 while it is down. */
  pid: number;
  address: string;
  version: string;
  health: 'SERVING' | 'NOT_SERVING' | 'UNREACHABLE';
  restarts: number;
}

/** An engine of its own: the launcher and every service as processes, as `npm start` runs them. */
export interface EngineUnderTest extends AsyncDisposable {
  /** Path of the Docker API's unix socket. */
  readonly socket: string;
  readonly dataRoot: string;
  readonly execRoot: string;
  /** Everything the processes wrote on standard output and error. */
  readonly logFile: string;
  /** Its daemon.json; `SIGHUP` to the launcher reads it again. */
  readonly configFile: string;
  /** See EngineOptions. */
  readonly bootIdFile: string | undefined;
  /** Changes with `start`. */
  readonly launcherPid: number;
  /** From the launcher's start to the first 200 of `GET /containers/json`. */
  readonly startMs: number;
  /** What `flotilla status` says; the launcher itself is not in it. */
  services(): Promise<EngineProcess[]>;
  /** Start it again after the launcher's end. */
  start(): Promise<void>;
  /** SIGTERM to the launcher and wait; containers go on running. */
  stop(): Promise<void>;
}

export interface EngineOptions {
  /** Holds data and exec root, best on tmpfs; made when missing, and the caller removes it. Its path is short: sockets lie in it. */
  directory: string;
  /** Where the engine runs; the machine's own network when absent. */
  namespace?: NetworkNamespace;
  /** More flags for `flotilla up`. */
  args?: readonly string[];
  /** daemon.json; `{}` when absent. */
  daemonJson?: Record<string, unknown>;
  /** What this file holds at a start is the machine's boot id to the engine: a reboot without one. */
  bootIdFile?: string;
  /** Files of the machine that the engine is to see with other contents, by their paths: it runs in a mount namespace of its own then. */
  files?: Readonly<Record<string, string>>;
}

/**
 * Start the bundled engine (`npm run bundle` makes it) and wait until every service serves.
 *
 * Disposing stops it, ends containers that are left, and unmounts what lies below the directory.
 */
export async function startEngine(options: EngineOptions): Promise<EngineUnderTest> {
  if (!existsSync(program)) throw new Error(`${program} is missing: npm run bundle`);
  const { directory } = options;
  const [dataRoot, execRoot] = [join(directory, 'data'), join(directory, 'run')];
  const socket = join(directory, 'docker.sock');
  const configFile = join(directory, 'daemon.json');
  const logFile = join(directory, 'engine.log');
  mkdirSync(directory, { recursive: true, mode: 0o711 });
  writeFileSync(configFile, JSON.stringify(options.daemonJson ?? {}));
  const flags = [
    '--config-file',
    configFile,
    '--data-root',
    dataRoot,
    '--exec-root',
    execRoot,
    '-H',
    `unix://${socket}`,
  ];
  if (options.namespace === undefined) flags.push('--bridge', `fl${randomBytes(4).toString('hex')}`);
  const { bootIdFile } = options;
  const command = programCommand({ bootIdFile }, ['up', ...flags, ...(options.args ?? [])]);
  const seeing = seeingFiles(directory, options.files ?? {}, command);
  const [file, args] = options.namespace?.command(...seeing) ?? seeing;

  let launcher: ChildProcess | undefined;
  let startMs = 0;
  const services = async (): Promise<EngineProcess[]> => {
    const { stdout } = await run(
      ...programCommand({ bootIdFile }, ['status', '--json', '--exec-root', execRoot]),
    ).catch((error: unknown) => error as { stdout: string }); // exit code 1: not everything serves
    return JSON.parse(stdout === '' ? '[]' : stdout) as EngineProcess[];
  };
  const start = async (): Promise<void> => {
    const log = openSync(logFile, 'a');
    const startedAt = performance.now();
    const child = spawn(file, args, { stdio: ['ignore', log, log], detached: true, env: engineEnvironment() });
    closeSync(log);
    launcher = child;
    try {
      await waitFor(
        async () => {
          if (hasEnded(child)) return true;
          return (await statusOf(socket, '/containers/json')) === 200;
        },
        { what: 'the first answer of the engine', timeoutMs: startLimitMs, intervalMs: 3 },
      );
      startMs = performance.now() - startedAt;
      await waitFor(
        async () => {
          if (hasEnded(child)) return true;
          const all = await services();
          return all.length > 0 && all.every(({ health }) => health === 'SERVING');
        },
        { what: 'every service to serve', timeoutMs: startLimitMs },
      );
      if (hasEnded(child)) throw new Error('the launcher ended');
    } catch (error) {
      if (!hasEnded(child)) child.kill('SIGKILL');
      throw new Error(`the engine did not start:\n${readFileSync(logFile, 'utf8').slice(-4000)}`, { cause: error });
    }
  };
  const stop = async (): Promise<void> => {
    const child = launcher;
    if (child === undefined || hasEnded(child)) return;
    const ended = once(child, 'exit');
    const timer = setTimeout(() => child.kill('SIGKILL'), stopLimitMs);
    child.kill('SIGTERM');
    await ended;
    clearTimeout(timer);
  };

  await start();
  return {
    socket,
    dataRoot,
    execRoot,
    logFile,
    configFile,
    bootIdFile,
    get launcherPid() {
      return launcher?.pid ?? 0;
    },
    get startMs() {
      return startMs;
    },
    services,
    start,
    stop,
    async [Symbol.asyncDispose]() {
      await stop();
      endLeftContainers(execRoot);
      await unmountBelow(directory);
    },
  };
}

/** The command line of `command` with other contents in place of some files. */
function seeingFiles(
  directory: string,
  files: Readonly<Record<string, string>>,
  command: [string, string[]],
): [string, string[]] {
  const [program, args] = command;
  const paths = Object.keys(files);
  if (paths.length === 0) return command;
  const binds = paths.map((path, at) => {
    const own = join(directory, `file-${at}`);
    writeFileSync(own, files[path] ?? '');
    return `mount --bind ${own} ${path} && `;
  });
  const script = `${binds.join('')}exec "$@"`;
  return ['unshare', ['--mount', '--propagation', 'private', 'sh', '-c', script, 'sh', program, ...args]];
}

/** The bundled launcher of this checkout: this file may run as source, compiled, or inside a bundle of the bench. */
export function findProgram(directory: string): string {
  const candidate = join(directory, 'dist/bundle/flotilla.js');
  const parent = dirname(directory);
  return existsSync(candidate) || parent === directory ? candidate : findProgram(parent);
}

/** Command line of `flotilla`. With a `bootIdFile` that file lies over the kernel's boot id; mounts are shared as before. */
export function programCommand(
  { bootIdFile }: { readonly bootIdFile?: string | undefined },
  args: readonly string[],
): [string, string[]] {
  if (bootIdFile === undefined) return [process.execPath, [program, ...args]];
  const over = 'mount --make-private /proc && mount --bind "$0" /proc/sys/kernel/random/boot_id && exec "$@"';
  const shell = ['sh', '-c', over, bootIdFile, process.execPath, program, ...args];
  return ['unshare', ['--mount', '--propagation', 'unchanged', ...shell]];
}

// Node reads all those certificates when it starts: 50 ms that say nothing about the engine.
function engineEnvironment(): NodeJS.ProcessEnv {
  const { NODE_EXTRA_CA_CERTS: _, ...env } = process.env;
  return env;
}

const hasEnded = (child: ChildProcess) => child.exitCode !== null || child.signalCode !== null;

/** Status of a GET over a unix socket; undefined when nobody answers. */
function statusOf(socketPath: string, path: string): Promise<number | undefined> {
  return new Promise((resolve) => {
    const sent = request({ socketPath, path, timeout: 15_000, agent: false }, (response) => {
      response.resume();
      response.once('close', () => resolve(response.statusCode));
    });
    sent.once('error', () => resolve(undefined));
    sent.once('timeout', () => sent.destroy());
    sent.end();
  });
}

/** Kill the shims of an engine and the processes they hold, as a failed test leaves them. */
function endLeftContainers(execRoot: string): void {
  for (const entry of readdirSync('/proc')) {
    if (!/^\d+$/.test(entry)) continue;
    const commandLine = readProc(`/proc/${entry}/cmdline`);
    if (!commandLine.includes('containerd-shim') || !commandLine.includes(execRoot)) continue;
    const children = readProc(`/proc/${entry}/task/${entry}/children`).split(' ').filter(Boolean);
    for (const pid of [...children, entry]) {
      try {
        process.kill(Number(pid), 'SIGKILL');
      } catch {
        // It has ended meanwhile.
      }
    }
  }
}

function readProc(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}

/** Detach every mount below a directory, the deepest first. */
export async function unmountBelow(directory: string): Promise<void> {
  const points = readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .map((line) => line.split(' ')[4] ?? '')
    .filter((point) => point.startsWith(`${directory}/`));
  for (const point of points.reverse()) await run('umount', ['-l', point]).catch(() => undefined);
}
