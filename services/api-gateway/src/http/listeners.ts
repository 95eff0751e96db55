import { once } from 'node:events';
import { chmod, chown, mkdir, readFile } from 'node:fs/promises';
import type { Server } from 'node:net';
import { dirname } from 'node:path';
import { invalidArgument } from '@flotilla/errors';
import type { Logger } from '@flotilla/log';
import { removeStaleSocket } from '@flotilla/rpc';

/** A place where the API is served. */
export type ApiAddress =
  | { readonly kind: 'unix'; readonly path: string }
  | { readonly kind: 'tcp'; readonly host: string; readonly port: number };

const SOCKET_MODE = 0o660;
// sun_path holds 108 bytes with its end.
const LONGEST_PATH = 107;

/**
 * Listen on one address. A unix socket gets mode 0660 and the group, when the machine has it.
 * @returns the address in a form for logs
 * @throws EngineError `conflict` when another process answers there
 */
export async function listenOn(server: Server, address: ApiAddress, group: string, log: Logger): Promise<string> {
  if (address.kind === 'tcp') {
    server.listen(address.port, address.host);
    await once(server, 'listening');
    const bound = server.address();
    return `tcp://${address.host}:${typeof bound === 'object' && bound !== null ? bound.port : address.port}`;
  }
  const { path } = address;
  if (Buffer.byteLength(path) > LONGEST_PATH)
    throw invalidArgument(`socket path ${path} is longer than ${LONGEST_PATH} bytes`);
  await mkdir(dirname(path), { recursive: true, mode: 0o711 });
  await removeStaleSocket(path);
  server.listen(path);
  await once(server, 'listening');
  await chmod(path, SOCKET_MODE);
  const gid = await groupId(group);
  if (gid === undefined) log.debug({ group }, 'no such group, the socket stays with its owner');
  else
    await chown(path, process.getuid?.() ?? 0, gid).catch((err: unknown) =>
      log.warn({ err, group }, 'the socket keeps its group'),
    );
  return `unix://${path}`;
}

/** Id of a group in /etc/group, or of a number. */
export async function groupId(group: string): Promise<number | undefined> {
  if (group === '') return undefined;
  const text = await readFile('/etc/group', 'utf8').catch(() => '');
  for (const line of text.split('\n')) {
    const [name, , id] = line.split(':');
    if (name === group && id !== undefined) return Number(id);
  }
  return /^\d+$/.test(group) ? Number(group) : undefined;
}
