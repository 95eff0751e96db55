import type { IdMappings } from '@flotilla/config';
import { internal, invalidArgument, messageOf } from '@flotilla/errors';
import { freeSubordinateRange, subordinateMapping } from './subordinate-ids.js';

/** What is asked of the machine. */
export interface Accounts {
  /** The line of the user or group database for a name or a number, like getent(1). */
  find(database: 'passwd' | 'group', key: string): string | undefined;
  /** Text of /etc/subuid or /etc/subgid; empty without the file. */
  subordinateIds(path: string): string;
  /** Run a program of passwd(1)'s family. @throws Error with its complaint. */
  administer(program: string, args: readonly string[]): void;
}

interface Account {
  name: string;
  id: string;
}

const [subuidPath, subgidPath] = ['/etc/subuid', '/etc/subgid'] as const;
/** The user behind `default`. */
const defaultUser = 'dockremap';

/**
 * What `userns-remap` (`default`, or `user`, `uid`, `user:group`, `uid:gid`) comes to: the subordinate ids of the user and the group. The user of
 * `default` and its ids are made when they are missing. Root remapped to itself is no remapping.
 *
 * @throws EngineError `invalidArgument` in dockerd's words; `internal` when the default user cannot be made
 */
export function remappedRoot(specification: string, accounts: Accounts): IdMappings | undefined {
  if (specification === '') return undefined;
  const { user, group } = resolve(specification, accounts);
  if (user.name === 'root') return undefined;
  const uids = accounts.subordinateIds(subuidPath);
  const gids = accounts.subordinateIds(subgidPath);
  return {
    uids: subordinateMapping(uids, subuidPath, [user.name, user.id]),
    // By subgid(5) the ranges are the user's; dockerd's documentation names the group.
    gids: subordinateMapping(gids, subgidPath, [group.name, group.id], [user.name, user.id]),
  };
}

function resolve(specification: string, accounts: Accounts): { user: Account; group: Account } {
  const parts = specification.split(':');
  const [userPart = '', groupPart] = parts;
  if (parts.length > 2 || parts.includes('')) {
    throw invalidArgument(`Invalid user/group specification in --userns-remap: "${specification}"`);
  }
  const isDefault = userPart === 'default';
  if (isDefault) ensureDefaultUser(accounts);
  const name = isDefault ? defaultUser : userPart;
  const user = find(accounts, 'passwd', name);
  if (user === undefined) {
    if (isNumber(name)) throw invalidArgument(`Uid ${name} has no entry in /etc/passwd`);
    throw invalidArgument(`Error during uid lookup for "${name}": no matching entries in passwd file`);
  }
  const groupName = groupPart ?? name;
  const group = find(accounts, 'group', groupName);
  if (group === undefined) {
    if (isNumber(groupName)) throw invalidArgument(`Gid ${groupName} has no entry in /etc/group`);
    throw invalidArgument(`Error during gid lookup for "${groupName}": no matching entries in group file`);
  }
  return { user, group };
}

function ensureDefaultUser(accounts: Accounts): void {
  try {
    if (find(accounts, 'passwd', defaultUser) === undefined) {
      accounts.administer('useradd', [
        ...['--system', '--user-group', '--no-create-home'],
        ...['--shell', '/bin/false', defaultUser],
      ]);
    }
    for (const [path, option] of [
      [subuidPath, '--add-subuids'],
      [subgidPath, '--add-subgids'],
    ] as const) {
      const text = accounts.subordinateIds(path);
      if (text.split('\n').some((line) => line.startsWith(`${defaultUser}:`))) continue;
      const { first, last } = freeSubordinateRange(text, path);
      accounts.administer('usermod', [option, `${first}-${last}`, defaultUser]);
    }
  } catch (cause) {
    throw internal(
      `Error during "${defaultUser}" user creation: ${messageOf(cause)}; make the user and its lines in /etc/subuid and /etc/subgid by hand, or name another in userns-remap`,
      { cause },
    );
  }
}

function find(accounts: Accounts, database: 'passwd' | 'group', key: string): Account | undefined {
  const [name, , id] = accounts.find(database, key)?.split(':') ?? [];
  return name === undefined || id === undefined ? undefined : { name, id };
}

const isNumber = (text: string): boolean => /^\d+$/.test(text);
