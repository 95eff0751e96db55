import { readFileSync, statSync } from 'node:fs';
import { parseResolvConf } from './resolv-conf.js';
import type { ResolvConf } from './resolv-conf.js';

/** Where systemd-resolved keeps the name servers behind its local stub. */
const resolvedPath = '/run/systemd/resolve/resolv.conf';
const stub = '127.0.0.53';
const nothing: ResolvConf = { nameservers: [], search: [], options: [] };

/** The host's resolver settings, read again when the file has changed. */
export class HostResolver {
  readonly #path: string;
  #cached: { stamp: string; value: ResolvConf } | undefined;

  constructor(path: string) {
    this.#path = path;
  }

  /** What containers should be told: the name servers behind systemd-resolved's stub, if that is what is configured. */
  current(): ResolvConf {
    const stamp = `${stampOf(this.#path)} ${stampOf(resolvedPath)}`;
    if (this.#cached?.stamp === stamp) return this.#cached.value;
    const own = read(this.#path);
    const isStub = own.nameservers.length > 0 && own.nameservers.every((address) => address === stub);
    const behind = isStub ? read(resolvedPath) : nothing;
    const value = behind.nameservers.length > 0 ? behind : own;
    this.#cached = { stamp, value };
    return value;
  }
}

function stampOf(path: string): string {
  const stat = statSync(path, { throwIfNoEntry: false });
  return stat === undefined ? '-' : `${stat.ino}:${stat.mtimeMs}:${stat.size}`;
}

function read(path: string): ResolvConf {
  try {
    return parseResolvConf(readFileSync(path, 'utf8'));
  } catch {
    return nothing; // a machine without resolver settings: containers get the public ones
  }
}
