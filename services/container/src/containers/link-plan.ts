import { invalidArgument } from '@flotilla/errors';

/** Another container of the default bridge, as one sees it. */
export interface Link {
  /** Of the other container: a link outlives its renaming. */
  id: string;
  alias: string;
}

/** On networks that users have made, links are names of the network's DNS; elsewhere they are lines of /etc/hosts and variables. */
export function hasLegacyLinks(networkMode: string): boolean {
  return ['bridge', 'default', '', 'none'].includes(networkMode);
}

/** `name`, `name:alias`, or `/name:/parent/alias` as inspect shows it. */
export function parseLink(text: string): { name: string; alias: string } {
  if (text === '') throw invalidArgument('empty string specified for links');
  const parts = text.split(':');
  const [name = '', given = name] = parts;
  const alias = name.startsWith('/') ? (given.split('/').at(-1) ?? '') : given;
  // Lines of a file and names of variables are made of it.
  if (parts.length > 2 || name === '' || !/^[a-zA-Z0-9][a-zA-Z0-9_.-]*$/.test(alias)) {
    throw invalidArgument(`bad format for links: ${text}`);
  }
  return { name: name.replace(/^\//, ''), alias };
}
