import { booleanFilter, matchLabels, parseTimestamp } from '@flotilla/docker-api';
import type { Filters } from '@flotilla/docker-api';
import { familiarName, parseReference } from '@flotilla/oci';
import { timestampToNs } from '@flotilla/proto';
import type { image } from '@flotilla/proto';
import { namePattern } from './name-pattern.js';

/** Keys that `GET /images/json` knows. */
export const imageFilterKeys: ReadonlySet<string> = new Set([
  'before',
  'dangling',
  'label',
  'label!',
  'reference',
  'since',
  'until',
]);

type Image = image.Image;

const createdNs = (object: Image): bigint => (object.createdAt === undefined ? 0n : timestampToNs(object.createdAt));

/**
 * Choose images, newest first. With a `reference` filter only the names that match are left in an image.
 *
 * @param all also images without a name that others are made from
 * @param resolve the image of a name; throws when there is none
 * @throws EngineError `invalidArgument` for values that a filter does not take
 */
export function selectImages(
  objects: readonly Image[],
  filters: Filters,
  all: boolean,
  resolve: (name: string) => Image,
  nowNs: bigint,
): Image[] {
  const dangling = booleanFilter(filters, 'dangling');
  const labels = filters.get('label');
  const excluded = filters.get('label!') ?? [];
  const before = (filters.get('before') ?? []).map((name) => createdNs(resolve(name)));
  const since = (filters.get('since') ?? []).map((name) => createdNs(resolve(name)));
  const until = (filters.get('until') ?? []).map((text) => parseTimestamp(text, nowNs) ?? 0n);
  const patterns = filters.get('reference')?.map(referencePattern);
  const parents = new Set(objects.map(({ parentId }) => parentId));

  const chosen: Image[] = [];
  for (const object of objects) {
    const isNamed = object.repoTags.length > 0 || object.repoDigests.length > 0;
    const isParent = parents.has(object.id);
    if (dangling === true && (object.repoTags.length > 0 || isParent)) continue;
    if (dangling === false && !isNamed) continue;
    if (!all && !isNamed && isParent) continue;
    const created = createdNs(object);
    if (
      before.some((bound) => created >= bound) ||
      since.some((bound) => created <= bound) ||
      until.some((bound) => created >= bound)
    )
      continue;
    const own = object.config?.labels ?? {};
    if (!matchLabels(labels, own) || excluded.some((selector) => matchLabels([selector], own))) continue;
    if (patterns === undefined) {
      chosen.push(object);
      continue;
    }
    const matches = (name: string): boolean => patterns.some((pattern) => pattern(name));
    const repoTags = object.repoTags.filter(matches);
    const repoDigests = object.repoDigests.filter(matches);
    if (repoTags.length > 0 || repoDigests.length > 0) chosen.push({ ...object, repoTags, repoDigests });
  }
  return chosen.sort((a, b) => (createdNs(b) > createdNs(a) ? 1 : createdNs(b) < createdNs(a) ? -1 : 0));
}

/** It matches the whole name or the name without tag. */
function referencePattern(pattern: string): (name: string) => boolean {
  const matches = namePattern(pattern);
  return (name) => matches(name) || matches(nameWithoutTag(name));
}

function nameWithoutTag(name: string): string {
  try {
    return familiarName(parseReference(name));
  } catch {
    return name;
  }
}
