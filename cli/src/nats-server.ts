import { randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as delay } from 'node:timers/promises';
import type { NatsSettings } from '@flotilla/config';
import { unavailable } from '@flotilla/errors';
import type { Logger } from '@flotilla/log';
import { KeptProcess } from './child-process.js';
import { writePrivateFile } from './engine-state.js';

const portLimitMs = 5000;

/** The engine's own nats-server with JetStream, on a loopback port. */
export interface NatsServer {
  readonly process: KeptProcess;
  readonly settings: NatsSettings;
}

/**
 * Start the private nats-server and keep it running. Its port is the one of the last start if that is free; services
 * hold the address for as long as they live, so later restarts use the same one.
 *
 * @throws EngineError `unavailable` when a first start tells no port.
 */
export async function startNatsServer(options: {
  readonly dataRoot: string;
  readonly execRoot: string;
  readonly log: Logger;
  readonly onChange: () => void;
}): Promise<NatsServer> {
  const { dataRoot, log } = options;
  const runDir = join(options.execRoot, 'nats');
  const storeDir = join(dataRoot, 'nats');
  const portFile = join(storeDir, 'port');
  mkdirSync(runDir, { recursive: true, mode: 0o700 });
  mkdirSync(storeDir, { recursive: true, mode: 0o700 });
  const credentials = { user: 'flotilla', pass: randomBytes(24).toString('hex') };
  const configFile = join(runDir, 'nats-server.conf');
  let port = await savedPort(portFile);
  const command = () => {
    for (const name of readdirSync(runDir)) if (name.endsWith('.ports')) rmSync(join(runDir, name));
    writePrivateFile(configFile, natsConfig({ port: port ?? -1, runDir, storeDir, ...credentials }));
    // The kernel ends it together with the launcher: it knows nothing of the launcher's pipe.
    return {
      file: 'setpriv',
      args: ['--pdeathsig', 'TERM', 'nats-server', '--config', configFile],
      env: { PATH: process.env['PATH'], GOGC: '50' },
    };
  };
  const child = new KeptProcess({
    name: 'nats-server',
    log,
    command,
    onChange: options.onChange,
    onStderr: (stream) => {
      createInterface(stream).on('line', (line) => forwardLine(line, log));
    },
  });
  child.start();
  try {
    port ??= await announcedPort(runDir);
  } catch (error) {
    await child.stop();
    throw error;
  }
  writePrivateFile(portFile, String(port));
  return { process: child, settings: { url: `nats://127.0.0.1:${port}`, ...credentials } };
}

function natsConfig(options: { port: number; user: string; pass: string; runDir: string; storeDir: string }): string {
  return [
    `listen: "127.0.0.1:${options.port}"`,
    'server_name: flotilla',
    `ports_file_dir: ${JSON.stringify(options.runDir)}`,
    `authorization { user: ${JSON.stringify(options.user)}, password: ${JSON.stringify(options.pass)} }`,
    `jetstream { store_dir: ${JSON.stringify(options.storeDir)}, max_memory_store: 16MB, max_file_store: 1GB }`,
    'max_payload: 1MB',
    '',
  ].join('\n');
}

async function savedPort(portFile: string): Promise<number | undefined> {
  if (!existsSync(portFile)) return undefined;
  const port = Number(readFileSync(portFile, 'utf8'));
  if (!Number.isInteger(port) || port < 1 || port > 65535) return undefined;
  return (await isFree(port)) ? port : undefined;
}

function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', () => resolve(false));
    server.listen({ port, host: '127.0.0.1', exclusive: true }, () => server.close(() => resolve(true)));
  });
}

/** Wait for the ports file: `{"nats": ["nats://127.0.0.1:38123"], ...}`. */
async function announcedPort(runDir: string): Promise<number> {
  const deadline = performance.now() + portLimitMs;
  while (performance.now() < deadline) {
    const name = readdirSync(runDir).find((each) => each.endsWith('.ports'));
    const port = name === undefined ? undefined : readPort(join(runDir, name));
    if (port !== undefined) return port;
    await delay(5);
  }
  throw unavailable(`nats-server did not start within ${portLimitMs} ms`);
}

function readPort(path: string): number | undefined {
  try {
    const { nats } = JSON.parse(readFileSync(path, 'utf8')) as { nats?: string[] };
    const port = /:(\d+)$/.exec(nats?.[0] ?? '')?.[1];
    return port === undefined ? undefined : Number(port);
  } catch {
    return undefined; // being written
  }
}

/** `[pid] 2026/01/02 03:04:05.678901 [INF] text` into the one log of the engine. */
function forwardLine(line: string, log: Logger): void {
  const [, level = 'INF', text = line] = /^\[\d+\] \S+ \S+ \[(\w+)\] (.*)$/.exec(line) ?? [];
  // The password is in a file that only root reads, made anew at each start; hashing it would gain nothing.
  if (text.startsWith('Plaintext passwords detected')) return;
  const fields = { process: 'nats-server', line: text };
  if (level === 'ERR' || level === 'FTL') log.error(fields, 'nats-server says');
  else if (level === 'WRN') log.warn(fields, 'nats-server says');
  else log.debug(fields, 'nats-server says');
}

/** Whether something accepts connections there. */
export function answersTcp(url: string): Promise<boolean> {
  const { hostname, port } = new URL(url);
  return new Promise((resolve) => {
    const socket = connect({ host: hostname, port: Number(port), timeout: 1000 });
    const end = (answer: boolean) => {
      socket.destroy();
      resolve(answer);
    };
    socket.once('connect', () => end(true));
    socket.once('error', () => end(false));
    socket.once('timeout', () => end(false));
  });
}
