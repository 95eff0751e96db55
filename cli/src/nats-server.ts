import { randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import { createServer } from 'node:net';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { NatsSettings } from '@flotilla/config';
import type { Logger } from '@flotilla/log';
import { KeptProcess } from './child-process.js';
import { writePrivateFile } from './engine-state.js';

/** The engine's own nats-server with JetStream, on a loopback port. */
export interface NatsServer {
  readonly process: KeptProcess;
  readonly settings: NatsSettings;
}

/**
 * The private nats-server, to be started by the caller. Its port is the one of the last start if that is free, and
 * chosen here: nobody waits for the server to tell it. Services hold the address for as long as they live, so restarts
 * use the same one.
 */
export async function prepareNatsServer(options: {
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
  const port = (await savedPort(portFile)) ?? (await listenBriefly(0));
  const command = () => {
    writePrivateFile(configFile, natsConfig({ port, storeDir, ...credentials }));
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
  writePrivateFile(portFile, String(port));
  return { process: child, settings: { url: `nats://127.0.0.1:${port}`, ...credentials } };
}

function natsConfig(options: { port: number; user: string; pass: string; storeDir: string }): string {
  return [
    `listen: "127.0.0.1:${options.port}"`,
    'server_name: flotilla',
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
  return listenBriefly(port).catch(() => undefined);
}

/** @returns the port, a free one for 0. @throws when it is taken */
function listenBriefly(port: number): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once('error', reject);
    server.listen({ port, host: '127.0.0.1', exclusive: true }, () => {
      const { port: bound } = server.address() as AddressInfo;
      server.close(() => resolve(bound));
    });
  });
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
