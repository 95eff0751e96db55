import type { IdMappings } from '@flotilla/config';
import { invalidArgument } from '@flotilla/errors';

type IdRange = IdMappings['uids'][number];

/** Ids that the kernel has: the last one means none. */
const idCount = 2 ** 32 - 1;
/** The kernel takes no longer list. */
const maxRanges = 340;

interface SubordinateRange {
  owner: string;
  start: number;
  count: number;
}

/**
 * The mapping that a file of subordinate ids (subuid(5)) gives an owner, who stands there by a name or a number: its ranges one after the other, from
 * id 0 on, in the order of the file. Of several owners the first counts that has any.
 *
 * @throws EngineError `invalidArgument` in dockerd's words
 */
export function subordinateMapping(text: string, path: string, ...owners: (readonly string[])[]): IdRange[] {
  const kind = path.endsWith('gid') ? 'subgid' : 'subuid';
  const all = parseSubordinateIds(text, path);
  const names = owners.find((one) => all.some(({ owner }) => one.includes(owner)));
  const name = owners[0]?.[0] ?? '';
  if (names === undefined) throw invalidArgument(`no ${kind} ranges found for user "${name}"`);
  const mapping: IdRange[] = [];
  let containerId = 0;
  for (const { start, count } of all.filter(({ owner }) => names.includes(owner))) {
    mapping.push({ containerId, hostId: start, size: count });
    containerId += count;
  }
  if (mapping.length > maxRanges) throw invalidArgument(`${path} has more than ${maxRanges} ranges for ${name}`);
  const sorted = mapping.toSorted((left, right) => left.hostId - right.hostId);
  for (const [at, { hostId, size }] of sorted.entries()) {
    if (hostId + size > (sorted[at + 1]?.hostId ?? idCount)) {
      throw invalidArgument(`${path}: the range from ${hostId} on overlaps another or ends beyond the last id`);
    }
  }
  return mapping;
}

/** A range of 65536 ids that no line has, after all of them. */
export function freeSubordinateRange(text: string, path: string): { first: number; last: number } {
  const ends = parseSubordinateIds(text, path).map(({ start, count }) => start + count);
  const first = Math.max(100_000, ...ends);
  return { first, last: first + 65_535 };
}

function parseSubordinateIds(text: string, path: string): SubordinateRange[] {
  return text
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '' && !line.startsWith('#'))
    .map((line) => {
      const [owner = '', start = '', count = '', ...rest] = line.split(':');
      if (owner === '' || rest.length > 0 || !/^\d+$/.test(start) || !/^\d+$/.test(count) || Number(count) === 0) {
        throw invalidArgument(`Cannot parse subuid/gid information: Format not correct for ${path} file: ${line}`);
      }
      return { owner, start: Number(start), count: Number(count) };
    });
}
