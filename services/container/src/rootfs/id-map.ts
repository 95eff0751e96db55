import { invalidArgument } from '@flotilla/errors';
import { asFileOwner, type IdMappings, type IdPair, toContainerId, toHostId } from '@flotilla/sys';

/** How files are shown to a container in a user namespace of its own: stored for 0, seen and written by its root. */
export interface IdMap {
  /** A user namespace with the container's mappings, open. */
  fd: number;
  mappings: IdMappings;
  /** The container's root, outside. */
  root: IdPair;
}

/** What `fn` makes belongs to the container's root; without a map, to root. */
export function asRootOf<T>(idMap: IdMap | undefined, fn: () => T): T {
  return idMap === undefined ? fn() : asFileOwner(idMap.root, fn);
}

/** An owner as the container calls it; nobody when it has no name for it. */
export function insideOwner({ mappings }: IdMap, { uid, gid }: IdPair): IdPair {
  return { uid: toContainerId(mappings.uids, uid), gid: toContainerId(mappings.gids, gid) };
}

/** An owner that the container names, as files show it outside. @throws EngineError `invalidArgument` in dockerd's words when it has no such id. */
export function outsideOwner({ mappings }: IdMap, { uid, gid }: IdPair): IdPair {
  return { uid: outside(mappings.uids, uid), gid: outside(mappings.gids, gid) };
}

/** An owner as files show it outside, with the container's nobody in place of one that the container does not have. */
export function knownOwner(idMap: IdMap, owner: IdPair): IdPair {
  return outsideOwner(idMap, insideOwner(idMap, owner));
}

function outside(ranges: IdMappings['uids'], id: number): number {
  const found = toHostId(ranges, id);
  if (found === undefined) throw invalidArgument(`Container ID ${id} cannot be mapped to a host ID`);
  return found;
}
