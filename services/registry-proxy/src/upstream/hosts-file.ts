import { readFile, stat } from 'node:fs/promises';
import { isAbsolute, join } from 'node:path';
import { invalidArgument, messageOf } from '@flotilla/errors';
import { hasCode } from '@flotilla/sys';
import { parseUrl } from './parse-url.js';

/** What a registry or mirror may be asked for: bytes by digest, what a tag stands for, uploads. */
export type Capability = 'pull' | 'resolve' | 'push';

/** Certificates beside those that certs.d has for the host: paths of PEM files. */
export interface CertificateFiles {
  readonly authorities: readonly string[];
  /** Certificate and key; an empty key is in the certificate's file. */
  readonly clientPair: readonly [certificate: string, key: string] | undefined;
}

/** One `[host."..."]` of a hosts.toml, or its `server`. */
export interface RegistryHost {
  readonly origin: string;
  /** Where the distribution API begins, without a slash at the end: `/v2` unless overridden. */
  readonly apiPath: string;
  readonly capabilities: ReadonlySet<Capability>;
  readonly verifyTls: boolean;
  readonly certificates: CertificateFiles;
}

/** A registry's hosts.toml: the mirrors in their order, then the registry itself if the file speaks of it. */
export interface HostsFile {
  readonly mirrors: readonly RegistryHost[];
  readonly server: RegistryHost | undefined;
}

const capabilityNames: readonly Capability[] = ['pull', 'resolve', 'push'];
const hostKeys = new Set(['capabilities', 'ca', 'client', 'skip_verify', 'override_path']);
const maxFileBytes = 256 * 1024;

/**
 * Read `<directory>/<host[:port]>/hosts.toml`, else `<directory>/_default/hosts.toml`, in containerd's format
 * (containerd docs/hosts.md). It is looked at for every request, so that a change counts at once.
 *
 * @throws EngineError `invalidArgument` that names the file and the key.
 */
export async function readHostsFile(directory: string, host: string): Promise<HostsFile | undefined> {
  for (const name of [host, '_default']) {
    const folder = join(directory, name);
    const path = join(folder, 'hosts.toml');
    try {
      if ((await stat(path)).size > maxFileBytes) throw invalidArgument(`${path}: larger than ${maxFileBytes} bytes`);
      const text = await readFile(path, 'utf8');
      // Loaded by the first file: most machines have none.
      const { parse } = await import('smol-toml');
      return parseHostsFile(parse, text, path, folder);
    } catch (error) {
      if (!hasCode(error, 'ENOENT') && !hasCode(error, 'ENOTDIR')) throw error;
    }
  }
  return undefined;
}

type Table = Readonly<Record<string, unknown>>;

function parseHostsFile(parse: (text: string) => unknown, text: string, path: string, folder: string): HostsFile {
  const fail = (what: string, cause?: unknown) => invalidArgument(`${path}: ${what}`, { cause });
  let document: Table;
  try {
    document = parse(text) as Table;
  } catch (error) {
    throw fail(messageOf(error).split('\n')[0] ?? 'not valid TOML', error);
  }
  const { server, host = {}, ...own } = document;
  if (server !== undefined && typeof server !== 'string') throw fail('server: expected a URL');
  if (typeof host !== 'object' || host === null || Array.isArray(host)) throw fail('host: expected tables');
  const [stray] = server === undefined ? Object.keys(own) : [];
  if (stray !== undefined) throw fail(hostKeys.has(stray) ? `${stray} needs a server` : `${stray} is not implemented`);
  return {
    // In the order of the file, which is the order to try.
    mirrors: Object.entries(host).map(([url, table]) => {
      if (typeof table !== 'object' || table === null) throw fail(`host.${JSON.stringify(url)}: expected a table`);
      return readHost(url, table as Table, `host.${JSON.stringify(url)}.`, folder, fail);
    }),
    server: server === undefined ? undefined : readHost(server, own, '', folder, fail),
  };
}

function readHost(
  text: string,
  table: Table,
  where: string,
  folder: string,
  fail: (what: string) => Error,
): RegistryHost {
  for (const key of Object.keys(table)) {
    if (!hostKeys.has(key)) throw fail(`${where}${key} is not implemented`);
  }
  const url = parseUrl(text.includes('://') ? text : `https://${text}`);
  if (
    url === null ||
    !['http:', 'https:'].includes(url.protocol) ||
    url.hostname === '' ||
    url.search !== '' ||
    url.username !== ''
  ) {
    throw fail(`${where}${JSON.stringify(text)} is not a URL of a registry`);
  }
  const flag = (key: string): boolean => {
    const value = table[key] ?? false;
    if (typeof value !== 'boolean') throw fail(`${where}${key}: expected true or false`);
    return value;
  };
  const path = url.pathname.replace(/\/+$/, '');
  const isWhole = flag('override_path') || path.endsWith('/v2');
  return {
    origin: url.origin,
    apiPath: isWhole ? path : `${path}/v2`,
    capabilities: readCapabilities(table['capabilities'], () =>
      fail(`${where}capabilities: expected pull, resolve or push`),
    ),
    verifyTls: !flag('skip_verify'),
    certificates: {
      authorities: texts(table['ca'], () => fail(`${where}ca: expected a file name or several`)).map(inFolder(folder)),
      clientPair: readClientPair(table['client'], folder, () =>
        fail(`${where}client: expected a certificate's file, or one pair of a certificate's and a key's`),
      ),
    },
  };
}

function readCapabilities(value: unknown, refuse: () => Error): ReadonlySet<Capability> {
  if (value === undefined) return new Set(capabilityNames);
  return new Set(
    texts(value, refuse).map((text) => {
      const known = capabilityNames.find((name) => name === text.toLowerCase());
      if (known === undefined) throw refuse();
      return known;
    }),
  );
}

/** `"pair.pem"`, `["pair.pem"]` or `[["client.cert", "client.key"]]`, as containerd takes them; one pair only. */
function readClientPair(value: unknown, folder: string, refuse: () => Error): CertificateFiles['clientPair'] {
  if (value === undefined) return undefined;
  const [first, more] = Array.isArray(value) ? (value as unknown[]) : [value];
  if (first === undefined || more !== undefined) throw refuse();
  const [certificate = '', key = '', rest] = texts(first, refuse);
  if (certificate === '' || rest !== undefined) throw refuse();
  return [inFolder(folder)(certificate), key === '' ? '' : inFolder(folder)(key)];
}

function texts(value: unknown, refuse: () => Error): string[] {
  if (value === undefined) return [];
  const list: unknown[] = Array.isArray(value) ? value : [value];
  return list.map((item) => {
    if (typeof item !== 'string' || item === '') throw refuse();
    return item;
  });
}

const inFolder = (folder: string) => (file: string) => (isAbsolute(file) ? file : join(folder, file));
