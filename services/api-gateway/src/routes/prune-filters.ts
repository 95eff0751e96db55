import { parseFilters, parseTimestamp } from '@flotilla/docker-api';
import type { Filters } from '@flotilla/docker-api';
import { invalidArgument } from '@flotilla/errors';
import { timestampFromNs } from '@flotilla/proto';
import type { Timestamp } from '@flotilla/proto';
import type { ApiCall } from '../http/api-call.js';

/** What all prune requests have in common. */
export interface PruneSelection {
  readonly filters: Filters;
  readonly until: Timestamp | undefined;
  readonly labels: string[];
  readonly excludedLabels: string[];
}

/** Nanoseconds since the epoch. */
export const nowNs = (): bigint => BigInt(Date.now()) * 1_000_000n;

/**
 * Read the filters of a prune request.
 * @param accepted the keys that the endpoint takes beside `label` and `label!`
 * @throws EngineError `invalidArgument` in Docker's words
 */
export function pruneSelection(call: ApiCall, accepted: readonly string[]): PruneSelection {
  const filters = parseFilters(call.query.get('filters'), new Set(['label', 'label!', ...accepted]));
  const until = filters.get('until') ?? [];
  if (until.length > 1) throw invalidArgument('more than one until filter specified');
  const untilNs = parseTimestamp(until[0], nowNs());
  return {
    filters,
    until: untilNs === undefined ? undefined : timestampFromNs(untilNs),
    labels: [...(filters.get('label') ?? [])],
    excludedLabels: [...(filters.get('label!') ?? [])],
  };
}
