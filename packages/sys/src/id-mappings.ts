/** A run of ids: `containerId` and the `size - 1` after it are `hostId` and those after it outside. */
export interface IdRange {
  readonly containerId: number;
  readonly hostId: number;
  readonly size: number;
}

/** How ids inside a user namespace are called outside of it: user_namespaces(7). */
export interface IdMappings {
  readonly uids: readonly IdRange[];
  readonly gids: readonly IdRange[];
}

/** A user and a group. */
export interface IdPair {
  readonly uid: number;
  readonly gid: number;
}

/** As whom the kernel shows who has no id. */
const overflowId = 65534;

/** The id outside, or nothing when the mapping has none. */
export function toHostId(ranges: readonly IdRange[], id: number): number | undefined {
  const range = ranges.find(({ containerId, size }) => id >= containerId && id < containerId + size);
  return range === undefined ? undefined : range.hostId + (id - range.containerId);
}

/** The id inside; of one that the mapping does not have, the kernel's id for nobody. */
export function toContainerId(ranges: readonly IdRange[], id: number): number {
  const range = ranges.find(({ hostId, size }) => id >= hostId && id < hostId + size);
  return range === undefined ? overflowId : range.containerId + (id - range.hostId);
}

/** Who root is outside. A mapping without root gives none. */
export function mappedRoot({ uids, gids }: IdMappings): IdPair | undefined {
  const [uid, gid] = [toHostId(uids, 0), toHostId(gids, 0)];
  return uid === undefined || gid === undefined ? undefined : { uid, gid };
}
