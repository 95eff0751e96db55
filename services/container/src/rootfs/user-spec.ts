import { invalidArgument } from '@flotilla/errors';

/** Who the container's process runs as, in the image's own numbers. */
export interface ResolvedUser {
  uid: number;
  gid: number;
  /** Supplementary groups, the primary one first, without doubles. */
  additionalGids: number[];
}

interface PasswdEntry {
  name: string;
  uid: number;
  gid: number;
}

interface GroupEntry {
  name: string;
  gid: number;
  members: string[];
}

const largestId = 2 ** 31 - 1;

/**
 * Resolve `user[:group]` and extra groups against the image's `/etc/passwd` and `/etc/group` (`undefined` when the image has none).
 *
 * Rules and sentences are those of moby/sys user `GetExecUser` and `GetAdditionalGroups`: numbers need no entry, a name does; without
 * an explicit group, the groups that list the user as a member are added.
 *
 * @throws EngineError `invalidArgument`.
 */
export function resolveUser(
  spec: string,
  extraGroups: readonly string[],
  passwd: string | undefined,
  group: string | undefined,
): ResolvedUser {
  const colon = spec.indexOf(':');
  const userPart = colon === -1 ? spec : spec.slice(0, colon);
  const groupPart = colon === -1 ? '' : spec.slice(colon + 1);
  const wantedUid = parseId(userPart);
  const entry = parsePasswd(passwd ?? '').find((candidate) => {
    if (userPart === '') return candidate.uid === 0;
    return wantedUid === undefined ? candidate.name === userPart : candidate.uid === wantedUid;
  });
  let uid = entry?.uid ?? 0;
  let gid = entry?.gid ?? 0;
  if (entry === undefined && userPart !== '') {
    if (wantedUid === undefined) {
      throw invalidArgument(`unable to find user ${userPart}: no matching entries in passwd file`);
    }
    uid = checkRange(wantedUid);
    gid = 0;
  }
  const groups = parseGroup(group ?? '');
  const memberships: number[] = [];
  if (groupPart !== '') {
    gid = resolveGroup(groupPart, groups);
  } else if (entry !== undefined) {
    memberships.push(...groups.filter((g) => g.members.includes(entry.name)).map((g) => g.gid));
  }
  const extra = extraGroups.map((name) => resolveGroup(name, groups));
  return { uid, gid, additionalGids: [...new Set([gid, ...memberships, ...extra])] };
}

function resolveGroup(name: string, groups: readonly GroupEntry[]): number {
  const wanted = parseId(name);
  const entry = groups.find((g) => (wanted === undefined ? g.name === name : g.gid === wanted));
  if (entry !== undefined) return entry.gid;
  if (wanted === undefined) throw invalidArgument(`unable to find group ${name}: no matching entries in group file`);
  return checkRange(wanted);
}

function parseId(text: string): number | undefined {
  return /^[+-]?\d+$/.test(text) ? Number(text) : undefined;
}

function checkRange(id: number): number {
  if (id < 0 || id > largestId) throw invalidArgument('uids and gids must be in range 0-2147483647');
  return id;
}

function parsePasswd(text: string): PasswdEntry[] {
  return lines(text).flatMap((line) => {
    const [name = '', , uid = '', gid = ''] = line.split(':');
    const entry = { name, uid: Number.parseInt(uid, 10), gid: Number.parseInt(gid, 10) };
    return isId(entry.uid) && isId(entry.gid) ? [entry] : [];
  });
}

function parseGroup(text: string): GroupEntry[] {
  return lines(text).flatMap((line) => {
    const [name = '', , gidText = '', members = ''] = line.split(':');
    const gid = Number.parseInt(gidText, 10);
    return isId(gid) ? [{ name, gid, members: members.split(',').filter((m) => m !== '') }] : [];
  });
}

function isId(id: number): boolean {
  return Number.isInteger(id) && id >= 0 && id <= largestId;
}

function lines(text: string): string[] {
  return text
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '');
}
