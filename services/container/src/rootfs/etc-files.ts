import { chown, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { IdPair } from '@flotilla/sys';

/** One line of /etc/hosts. */
export interface HostsLine {
  address: string;
  names: readonly string[];
}

/** Host paths of the three files that are bind-mounted over a container's own. */
export interface EtcFiles {
  hosts: string;
  hostname: string;
  resolvConf: string;
}

const standardHosts: readonly HostsLine[] = [
  { address: '127.0.0.1', names: ['localhost'] },
  { address: '::1', names: ['localhost', 'ip6-localhost', 'ip6-loopback'] },
  { address: 'fe00::', names: ['ip6-localnet'] },
  { address: 'ff00::', names: ['ip6-mcastprefix'] },
  { address: 'ff02::1', names: ['ip6-allnodes'] },
  { address: 'ff02::2', names: ['ip6-allrouters'] },
];

/** Where a container's files are kept, whether they exist or not. */
export function etcFilesIn(directory: string): EtcFiles {
  return {
    hosts: join(directory, 'hosts'),
    hostname: join(directory, 'hostname'),
    resolvConf: join(directory, 'resolv.conf'),
  };
}

/** Text of /etc/hosts: the standard lines (or `base` instead, for the host's network), then `lines`. */
export function renderHosts(lines: readonly HostsLine[], base?: string): string {
  const head = base ?? standardHosts.map(renderLine).join('');
  const separated = head === '' || head.endsWith('\n') ? head : `${head}\n`;
  return separated + lines.map(renderLine).join('');
}

function renderLine({ address, names }: HostsLine): string {
  return `${address}\t${names.join(' ')}\n`;
}

/** The text of a hosts file with another address in the lines whose first name is this one. */
export function withAddress(text: string, name: string, address: string): string {
  return editLines(text, (line, first) => (first === name ? line.replace(/^\S+/, address) : line));
}

/** The text of a hosts file without the lines whose first name is this one. */
export function withoutName(text: string, name: string): string {
  return editLines(text, (line, first) => (first === name ? undefined : line));
}

function editLines(text: string, edit: (line: string, firstName: string | undefined) => string | undefined): string {
  return text
    .split('\n')
    .flatMap((line) => edit(line, /^[^\s#]+\s+(\S+)/.exec(line)?.[1]) ?? [])
    .join('\n');
}

/**
 * Write the three files, in place: a running container has them bind-mounted, so that a new inode would not be seen.
 * They are remade at every start, hence not synced. The directory exists. They are `owner`'s, the container's root.
 */
export async function writeEtcFiles(
  directory: string,
  content: { hosts: string; hostname: string; resolvConf: string },
  { uid, gid }: IdPair = { uid: 0, gid: 0 },
): Promise<EtcFiles> {
  const files = etcFilesIn(directory);
  await Promise.all([
    writeFile(files.hosts, content.hosts, { mode: 0o644 }),
    writeFile(files.hostname, `${content.hostname}\n`, { mode: 0o644 }),
    writeFile(files.resolvConf, content.resolvConf, { mode: 0o644 }),
  ]);
  if (uid !== 0 || gid !== 0) await Promise.all(Object.values(files).map((path: string) => chown(path, uid, gid)));
  return files;
}

/** The machine's own /etc/hosts, empty where there is none. */
export async function readHostHosts(): Promise<string> {
  try {
    return await readFile('/etc/hosts', 'utf8');
  } catch {
    return '';
  }
}
