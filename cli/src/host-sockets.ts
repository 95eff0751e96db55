import { lstatSync } from 'node:fs';
import { connect } from 'node:net';
import { conflict } from '@flotilla/errors';

/**
 * The API's sockets are free: absent, or left by a process that has ended. Asked before anything starts, because the
 * gateway that finds this out later would only be started again and again.
 *
 * @throws EngineError `conflict` naming the path
 */
export async function refuseSocketsInUse(hosts: readonly string[]): Promise<void> {
  for (const host of hosts) {
    const path = host.replace(/^unix:\/\//, '');
    const stat = lstatSync(path, { throwIfNoEntry: false });
    if (stat === undefined) continue;
    if (!stat.isSocket()) throw conflict(`${path} exists and is not a socket`);
    if (await answersUnix(path)) throw conflict(`another process listens on ${path}`);
  }
}

function answersUnix(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path);
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}
