import { apiVersion, parseFilters, parseTimestamp } from '@flotilla/docker-api';
import { invalidArgument } from '@flotilla/errors';
import type { ApiCall } from '../http/api-call.js';
import type { Route } from '../http/route-table.js';
import { eventFilterKeys, eventTest } from '../model/event-filters.js';
import type { PeerName } from '../peers.js';
import { eventLine } from '../shapes/event.js';
import type { GatewayContext } from './gateway-context.js';
import { nowNs } from './prune-filters.js';

/** Services that publish events. */
const PUBLISHERS: readonly PeerName[] = ['image', 'container', 'network', 'volume'];
const FLUSH_MS = 2_000;

/** `GET /events`. */
export const eventRoutes = (context: GatewayContext): Route[] => [
  { method: 'GET', path: '/events', handler: (call) => stream(context, call) },
];

async function stream(context: GatewayContext, call: ApiCall): Promise<void> {
  const { query, signal } = call;
  const now = nowNs();
  const filters = parseFilters(query.get('filters'), eventFilterKeys);
  const since = parseTimestamp(query.get('since'), now);
  const until = parseTimestamp(query.get('until'), now);
  if (since !== undefined && until !== undefined && until < since) {
    throw invalidArgument(
      `\`since\` time (${query.get('since') ?? ''}) cannot be after \`until\` time (${query.get('until') ?? ''})`,
    );
  }
  if (until !== undefined && until <= now) await flush(context, signal);
  const wanted = eventTest(filters);
  const types = filters.get('type') ?? [];
  const onlyType = types.length === 1 ? types[0] : undefined;
  const events = await context.events.read({
    ...(since === undefined ? {} : { since }),
    ...(until === undefined ? {} : { until }),
    ...(onlyType === undefined ? {} : { type: onlyType }),
    signal,
  });
  call.startBody(200, 'application/json');
  for await (const event of events) {
    if (!wanted(event)) continue;
    // Clients before 1.46 do not know that pulling and building create images.
    if (event.type === 'image' && event.action === 'create' && call.version < apiVersion(1, 46)) continue;
    await call.write(eventLine(event));
  }
  call.end();
}

/** Have every service publish what it has committed: a query about the past must not miss it. A service that is down publishes later. */
async function flush({ peers, log }: GatewayContext, signal: AbortSignal): Promise<void> {
  await Promise.all(
    PUBLISHERS.map((name) =>
      peers.control[name]
        .flushEvents({}, { deadlineMs: FLUSH_MS, retryUnavailableMs: 0, signal })
        .catch((err: unknown) => {
          log.debug({ peer: name, err }, 'events not flushed');
        }),
    ),
  );
}
