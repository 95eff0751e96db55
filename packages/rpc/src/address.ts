import { chmod, lstat, mkdir, unlink } from 'node:fs/promises';
import { connect } from 'node:net';
import { dirname } from 'node:path';
import { conflict, invalidArgument } from '@flotilla/errors';

/** Where a server listens. */
export type Listen =
  | { readonly kind: 'unix'; readonly path: string }
  | { readonly kind: 'tcp'; readonly host: string; readonly port: number; readonly tls?: TlsFiles | undefined };

/** PEM files of one side of a mutual TLS link. */
export interface TlsFiles {
  /** Certificates of the authority that signed the other side's certificate. */
  readonly caFile: string;
  readonly certFile: string;
  readonly keyFile: string;
}

// sun_path holds 108 bytes with its end; the margin is for names beside the socket.
const longestPath = 100;

/** `unix:/run/flotilla/volume.sock` or `tcp:10.0.0.5:7070` in the form that grpc-js takes. @throws EngineError `invalidArgument` */
export function grpcTarget(address: string): string {
  const unix = /^unix:(?:\/\/)?(\/.*)$/.exec(address)?.[1];
  if (unix !== undefined) return `unix:${unix}`;
  const tcp = /^(?:tcp:(?:\/\/)?)?((?:\[[0-9a-fA-F:.]+\]|[^:/[\]]+):\d{1,5})$/.exec(address)?.[1];
  if (tcp !== undefined) return `dns:${tcp}`;
  throw invalidArgument(`invalid service address "${address}": want unix:/path or tcp:host:port`);
}

export const isUnixAddress = (address: string): boolean => address.startsWith('unix:');

/**
 * Make a unix socket's place ready: directory 0700, nothing left from a dead process.
 *
 * @throws EngineError `invalidArgument` for a path over 100 bytes; `conflict` when something answers there.
 */
export async function prepareSocketPath(path: string): Promise<void> {
  const length = Buffer.byteLength(path);
  if (length > longestPath) {
    throw invalidArgument(`socket path ${path} has ${length} bytes, at most ${longestPath} are possible`);
  }
  await mkdir(dirname(path), { recursive: true, mode: 0o700 });
  await removeStaleSocket(path);
}

/** Remove a socket that a dead process left. @throws EngineError `conflict` when it is no socket or something answers there */
export async function removeStaleSocket(path: string): Promise<void> {
  const stat = await lstat(path).catch(() => undefined);
  if (stat === undefined) return;
  if (!stat.isSocket()) throw conflict(`${path} exists and is not a socket`);
  if (await answers(path)) throw conflict(`another process listens on ${path}`);
  await unlink(path);
}

/** Only root may connect; the directory keeps others away until this has run. */
export async function restrictSocket(path: string): Promise<void> {
  await chmod(path, 0o600);
}

function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path);
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}
