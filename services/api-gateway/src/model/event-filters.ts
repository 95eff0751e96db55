import { matchLabels } from '@flotilla/docker-api';
import type { Filters } from '@flotilla/docker-api';
import type { events } from '@flotilla/proto';

/** Keys that `GET /events` knows. */
export const eventFilterKeys: ReadonlySet<string> = new Set([
  'config',
  'container',
  'daemon',
  'event',
  'image',
  'label',
  'network',
  'node',
  'plugin',
  'scope',
  'secret',
  'service',
  'type',
  'volume',
]);

/** Objects whose filter matches the start of an id or a name. */
const OBJECT_KEYS = [
  'config',
  'container',
  'daemon',
  'network',
  'node',
  'plugin',
  'secret',
  'service',
  'volume',
] as const;
/** Actions with a detail after a colon: named alone they match with any detail. */
const DETAILED = ['health_status', 'exec_create', 'exec_start'];

/** Whether a client that gave these filters wants an event. Rules of moby's daemon/events/filter.go. */
export function eventTest(filters: Filters): (event: events.Event) => boolean {
  const values = (key: string): readonly string[] | undefined => {
    const given = filters.get(key);
    return given === undefined || given.length === 0 ? undefined : given;
  };
  const actions = values('event');
  const byPrefix = actions?.some((action) => DETAILED.includes(action)) === true;
  const types = values('type');
  const scopes = values('scope');
  const images = values('image');
  const labels = values('label');
  const objects = OBJECT_KEYS.flatMap((key) => {
    const wanted = values(key);
    return wanted === undefined ? [] : [wanted];
  });
  return (event) => {
    const { action, type, actorId, attributes } = event;
    if (actions !== undefined && !actions.some((wanted) => (byPrefix ? action.startsWith(wanted) : action === wanted)))
      return false;
    if (types?.includes(type) === false) return false;
    if (scopes?.includes(event.scope === '' ? 'local' : event.scope) === false) return false;
    const name = attributes['name'] ?? '';
    if (!objects.every((wanted) => wanted.some((text) => actorId.startsWith(text) || name.startsWith(text))))
      return false;
    if (images !== undefined && !imageNames(event).some((text) => images.includes(text))) return false;
    return labels === undefined || matchLabels(labels, attributes);
  };
}

function imageNames({ type, actorId, attributes }: events.Event): string[] {
  const name = attributes[type === 'image' ? 'name' : 'image'] ?? '';
  return [actorId, name, withoutTag(actorId), withoutTag(name)].filter((text) => text !== '');
}

const withoutTag = (name: string): string => name.replace(/(?::[\w][\w.-]*)?(?:@.*)?$/, '');
