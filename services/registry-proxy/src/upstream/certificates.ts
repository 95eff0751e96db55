import { readFile, readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { rootCertificates } from 'node:tls';
import { invalidArgument } from '@flotilla/errors';
import { hasCode } from '@flotilla/sys';

/** TLS material for one registry. */
export interface Certificates {
  /** Authorities beside the public ones, PEM. */
  readonly authorities: readonly string[];
  readonly client: { readonly certificate: string; readonly key: string } | undefined;
}

/**
 * Read `<directory>/<host[:port]>/`: `*.crt` are authorities, `x.cert` with `x.key` a client pair (Docker's certs.d).
 * A directory that does not exist gives nothing.
 *
 * @throws EngineError `invalidArgument` for a certificate without its key or the other way round.
 */
export async function readCertificates(directory: string, host: string): Promise<Certificates> {
  const folder = join(directory, host);
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
export async function certificatesVersion(directory: string, host: string): Promise<string> {
  const folder = join(directory, host);
  try {
    const names = (await readdir(folder)).sort();
    const files = await Promise.all(names.map((name) => stat(join(folder, name))));
    return files
      .map(({ ino, size, mtimeMs, ctimeMs }, at) => [names[at], ino, size, mtimeMs, ctimeMs].join())
      .join('/');
  } catch {
    // Not there, or just being changed: reading it says what is wrong.
    return '';
  }
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
