import { readFile, readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { rootCertificates } from 'node:tls';
import { invalidArgument, messageOf } from '@flotilla/errors';
import { hasCode } from '@flotilla/sys';
import type { CertificateFiles } from './hosts-file.js';

/** TLS material for one registry. */
export interface Certificates {
  /** Authorities beside the public ones, PEM. */
  readonly authorities: readonly string[];
  readonly client: { readonly certificate: string; readonly key: string } | undefined;
}

/**
 * Read `<directory>/<host[:port]>/`: `*.crt` are authorities, `x.cert` with `x.key` a client pair (Docker's certs.d).
 * A directory that does not exist gives nothing. `named` come from a hosts.toml: its pair wins.
 *
 * @throws EngineError `invalidArgument` for a certificate without its key or the other way round, or a named file that cannot be read.
 */
export async function readCertificates(
  directory: string,
  host: string,
  named?: CertificateFiles,
): Promise<Certificates> {
  const found = await readFolder(join(directory, host));
  if (named === undefined) return found;
  const [certificate = '', key = ''] = named.clientPair ?? [];
  return {
    authorities: [...(await Promise.all(named.authorities.map(readNamed))), ...found.authorities],
    client:
      certificate === ''
        ? found.client
        : { certificate: await readNamed(certificate), key: await readNamed(key === '' ? certificate : key) },
  };
}

async function readNamed(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    throw invalidArgument(`a certificate of hosts.toml cannot be read: ${messageOf(error)}`, { cause: error });
  }
}

async function readFolder(folder: string): Promise<Certificates> {
  let names: string[];
  try {
    names = (await readdir(folder)).sort();
  } catch (error) {
    if (hasCode(error, 'ENOENT') || hasCode(error, 'ENOTDIR')) return { authorities: [], client: undefined };
    throw error;
  }
  const authorities: string[] = [];
  let client: Certificates['client'];
  for (const name of names) {
    const path = join(folder, name);
    if (name.endsWith('.crt')) authorities.push(await readFile(path, 'utf8'));
    else if (name.endsWith('.cert')) {
      const keyName = `${name.slice(0, -'.cert'.length)}.key`;
      if (!names.includes(keyName)) {
        throw invalidArgument(
          `missing key ${keyName} for client certificate ${name}. CA certificates must use the extension .crt`,
        );
      }
      client ??= { certificate: await readFile(path, 'utf8'), key: await readFile(join(folder, keyName), 'utf8') };
    } else if (name.endsWith('.key') && !names.includes(`${name.slice(0, -'.key'.length)}.cert`)) {
      throw invalidArgument(`missing client certificate ${name.slice(0, -'.key'.length)}.cert for key ${name}`);
    }
  }
  return { authorities, client };
}

/** Another text whenever `readCertificates` may give something else. */
export async function certificatesVersion(directory: string, host: string, named?: CertificateFiles): Promise<string> {
  const folder = join(directory, host);
  const names = await readdir(folder).catch(() => []);
  const paths = names.sort().map((name) => join(folder, name));
  paths.push(...(named?.authorities ?? []), ...(named?.clientPair ?? []));
  const versions = paths.map(async (path) => {
    // One that is not there, or just being changed, is told of when it is read.
    const info = await stat(path).catch(() => undefined);
    return [path, info?.ino, info?.size, info?.mtimeMs, info?.ctimeMs].join();
  });
  return (await Promise.all(versions)).join('/');
}

let systemAuthorities: Promise<readonly string[]> | undefined;

/** The public authorities that this machine trusts: Node's and the distribution's own list. */
export function trustedAuthorities(): Promise<readonly string[]> {
  systemAuthorities ??= readFile('/etc/ssl/certs/ca-certificates.crt', 'utf8').then(
    (bundle) => [...rootCertificates, bundle],
    () => rootCertificates,
  );
  return systemAuthorities;
}
