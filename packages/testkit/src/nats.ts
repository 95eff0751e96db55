import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { readFile, rm, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { join } from 'node:path';
import { makeTempDir } from './temp-dir.js';
import { waitFor } from './wait-for.js';

/** A real nats-server with JetStream on a port of its own, with its store in memory. */
export interface TestNats extends AsyncDisposable {
  readonly url: string;
  readonly user: string;
  readonly pass: string;
  readonly pid: number;
  /** SIGKILL, as a crash. Resolves when it is gone. */
  kill(): Promise<void>;
  /** Start again after `kill`, with the same port and store. */
  restart(): Promise<void>;
  /** SIGSTOP and SIGCONT: a server that hangs. */
  pause(): void;
  resume(): void;
}

/** Start nats-server; it must be on PATH. */
export async function startNats(): Promise<TestNats> {
  const dir = await makeTempDir('nats');
  const user = 'flotilla';
  const pass = 'test';
  const configPath = join(dir.path, 'nats.conf');
  let port = -1;
  let child: ChildProcess | undefined;

  const start = async () => {
    const config = [
      `listen: "127.0.0.1:${port}"`,
      `ports_file_dir: "${dir.path}"`,
      `jetstream { store_dir: "${join(dir.path, 'store')}" }`,
      `authorization { user: "${user}", password: "${pass}" }`,
    ];
    await writeFile(configPath, config.join('\n'), { mode: 0o600 });
    const started = spawn('nats-server', ['-c', configPath], { stdio: 'ignore' });
    child = started;
    await once(started, 'spawn');
    const portsPath = join(dir.path, `nats-server_${started.pid ?? 0}.ports`);
    port = await waitFor(
      async () => {
        const ports = JSON.parse(await readFile(portsPath, 'utf8')) as { nats?: string[] };
        return ports.nats?.[0] === undefined ? undefined : Number(new URL(ports.nats[0]).port);
      },
      { what: 'nats-server to listen' },
    );
    await waitFor(() => accepts(port), { what: 'nats-server to accept connections' });
    // Written anew with the next start; a stale one would be read as this server's.
    await rm(portsPath, { force: true });
  };

  const kill = async () => {
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const gone = once(child, 'exit');
    child.kill('SIGKILL');
    await gone;
  };

  await start();
  return {
    get url() {
      return `nats://127.0.0.1:${port}`;
    },
    user,
    pass,
    get pid() {
      return child?.pid ?? 0;
    },
    kill,
    restart: start,
    pause: () => void child?.kill('SIGSTOP'),
    resume: () => void child?.kill('SIGCONT'),
    async [Symbol.asyncDispose]() {
      await kill();
      await dir[Symbol.asyncDispose]();
    },
  };
}

function accepts(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1');
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => {
      resolve(false);
    });
  });
}
