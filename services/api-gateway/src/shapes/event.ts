import type { events } from '@flotilla/proto';

/** One line of `GET /events`. The nanoseconds are more than a JavaScript number holds, so the text is put together by hand. */
export function eventLine(event: events.Event): string {
  const { type, action, actorId, attributes, scope, timeNs } = event;
  const head: Record<string, unknown> = {};
  if (type === 'container') Object.assign(head, { status: action, id: actorId, from: attributes['image'] });
  else if (type === 'image') Object.assign(head, { status: action, id: actorId });
  const body = JSON.stringify({
    ...head,
    Type: type,
    Action: action,
    Actor: { ID: actorId, Attributes: attributes },
    scope: scope === '' ? 'local' : scope,
  });
  return `${body.slice(0, -1)},"time":${timeNs / 1_000_000_000n},"timeNano":${timeNs}}\n`;
}
