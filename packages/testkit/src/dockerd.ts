import { execFileSync, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import type { NetworkNamespace } from './network-namespace.js';

/** The engine to compare with: Debian's dockerd with its own data root, in a namespace of the bench. */
export interface DockerdPeer extends AsyncDisposable {
  readonly socket: string;
  /** Changes with `restart`. */
  readonly pid: number;
  /** Milliseconds from spawn to the first answer on the socket. */
  readonly startMs: number;
  /** SIGTERM (which stops its containers), then start it again over the same data. */
  restart(): Promise<void>;
  /** Processes that belong to it: dockerd and its containerd. */
  processIds(): number[];
}

/** Unpack Debian's docker.io (not installed: nothing of it should start by itself). @returns its bin directories. */
export function unpackDockerPackage(cacheDirectory: string): string[] {
  const root = join(cacheDirectory, 'docker.io');
  if (!existsSync(join(root, 'usr/sbin/dockerd'))) {
    mkdirSync(root, { recursive: true });
    execFileSync('apt-get', ['download', 'docker.io'], { cwd: root, stdio: ['ignore', 'ignore', 'pipe'] });
    const archive = readdirSync(root).find((name) => name.endsWith('.deb'));
    if (archive === undefined) throw new Error('apt-get download docker.io brought no package');
    execFileSync('dpkg-deb', ['-x', join(root, archive), root]);
  }
  return [join(root, 'usr/sbin'), join(root, 'usr/bin')];
}

/** Start dockerd; its data root and run directory lie in `directory`. */
export async function startDockerd(options: {
  directory: string;
  cacheDirectory: string;
  namespace: NetworkNamespace;
  /** `{}` when absent. */
  daemonJson?: Record<string, unknown>;
}): Promise<DockerdPeer> {
  const bins = unpackDockerPackage(options.cacheDirectory);
  mkdirSync(options.directory, { recursive: true });
  const socket = join(options.directory, 'docker.sock');
  const log = join(options.directory, 'dockerd.log');
  const config = join(options.directory, 'daemon.json');
  rmSync(join(options.directory, 'docker.pid'), { force: true });
  writeFileSync(config, JSON.stringify(options.daemonJson ?? {}));
  const command = `exec dockerd --config-file ${config} --data-root ${options.directory}/data --exec-root ${options.directory}/exec --pidfile ${options.directory}/docker.pid -H unix://${socket} --storage-driver overlay2 >>${log} 2>&1`;
  const env = { ...process.env, PATH: `${bins.join(':')}:${process.env['PATH'] ?? ''}` };
  let child: ChildProcess | undefined;
  let startMs = 0;
  let pid = 0;
  const start = async (): Promise<void> => {
    const startedAt = performance.now();
    const starting = (child = options.namespace.spawn('sh', ['-c', command], { stdio: 'ignore', env }));
    const deadline = Date.now() + 60_000;
    while (!(await answers(socket))) {
      if (starting.exitCode !== null || Date.now() > deadline)
        throw new Error(`dockerd did not start: ${readFileSync(log, 'utf8').slice(-2000)}`);
      await new Promise((resolve) => setImmediate(resolve));
    }
    startMs = performance.now() - startedAt;
    pid = Number(readFileSync(join(options.directory, 'docker.pid'), 'utf8'));
  };
  const stop = async (): Promise<void> => {
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, 'exit');
    child.kill('SIGTERM');
    await ended;
  };
  await start();
  return {
    socket,
    get pid() {
      return pid;
    },
    get startMs() {
      return startMs;
    },
    async restart() {
      await stop();
      await start();
    },
    processIds: () => [
      pid,
      ...execFileSync('sh', ['-c', `pgrep -P ${pid} || true`], { encoding: 'utf8' })
        .trim()
        .split('\n')
        .filter(Boolean)
        .map(Number),
    ],
    [Symbol.asyncDispose]: stop,
  };
}

function answers(socket: string): Promise<boolean> {
  return new Promise((resolve) => {
    const client = connect(socket);
    client.once('error', () => resolve(false));
    client.once('connect', () => client.write('GET /containers/json HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n'));
    client.once('data', (data) => {
      client.destroy();
      resolve(data.toString('latin1').startsWith('HTTP/1.1 200'));
    });
  });
}
