/** The JetStream stream that holds the events of all engines that share a NATS. */
export const eventStream = 'FLOTILLA_EVENTS';
export const eventStreamSubjects = 'flotilla.>';

/**
 * One token of a subject: only `[a-z0-9_-]`. A subject with a space would make the server disconnect the client, and dots or wildcards would change its meaning.
 */
function subjectToken(text: string): string {
  return text.toLowerCase().replace(/[^a-z0-9_-]+/g, '_') || '_';
}

/** `flotilla.<node>.<type>.<action>`; of an action such as `exec_create: sh -c x` only the part before the colon. */
export function eventSubject(node: string, type: string, action: string): string {
  const verb = action.split(':', 1)[0] ?? '';
  return `flotilla.${subjectToken(node)}.${subjectToken(type)}.${subjectToken(verb.trim())}`;
}

/** The one subject filter of a reader: a consumer of nats-server 2.9 takes no more. */
export function eventFilter(node: string, type?: string): string {
  return `flotilla.${subjectToken(node)}.${type === undefined ? '>' : `${subjectToken(type)}.>`}`;
}
