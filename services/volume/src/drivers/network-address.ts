import { lookup } from 'node:dns/promises';
import { isIP } from 'node:net';
import { internal } from '@flotilla/errors';
import type { LocalMount } from './local-options.js';

const lookupMs = 20_000;

/**
 * The mount with the names of file servers resolved, which mount(2) wants as addresses: `addr=` of nfs and cifs, and the host of a cifs device. Rules and
 * phrase: moby/moby daemon/volume/local/local_unix.go, mount.
 *
 * @throws EngineError `internal` when there is no such name
 */
export async function resolveServer(mount: LocalMount, resolve: typeof addressOf = addressOf): Promise<LocalMount> {
  if (!['nfs', 'nfs4', 'cifs'].includes(mount.fstype)) return mount;
  const options = mount.data.split(',');
  const at = options.findIndex((option) => option.startsWith('addr='));
  const server = options[at]?.slice('addr='.length) ?? '';
  if (server !== '') {
    if (isIP(server) !== 0) return mount;
    const address = await resolve(server);
    return { ...mount, data: options.with(at, `addr=${address}`).join(',') };
  }
  const [, host, path] = /^\/\/([^/]+)(.*)$/s.exec(mount.device) ?? [];
  if (mount.fstype !== 'cifs' || host === undefined || path === undefined || isIP(host) !== 0) return mount;
  return { ...mount, device: `//${await resolve(host)}${path}` };
}

/** IPv4 where there is both, as dockerd. */
async function addressOf(host: string): Promise<string> {
  const refuse = (reason: string, cause?: unknown): Error =>
    internal(`error resolving passed in network volume address: lookup ${host}: ${reason}`, { cause });
  let timer: NodeJS.Timeout | undefined;
  const limit = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(refuse(`no answer within ${lookupMs / 1000} seconds`)), lookupMs);
  });
  const looking = lookup(host, { all: true }).catch((error: unknown) => {
    throw refuse(reasonOf(error), error);
  });
  try {
    const found = await Promise.race([looking, limit]);
    const [first] = found.sort((left, right) => left.family - right.family);
    if (first === undefined) throw refuse('no such host');
    return first.address;
  } finally {
    clearTimeout(timer);
    looking.catch(() => undefined);
  }
}

function reasonOf(error: unknown): string {
  const code = error instanceof Error && 'code' in error ? String(error.code) : '';
  if (code === 'ENOTFOUND' || code === 'ENODATA') return 'no such host';
  return code === 'EAI_AGAIN' ? 'temporary failure in name resolution' : `cannot be resolved (${code})`;
}
