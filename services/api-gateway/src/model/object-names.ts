import { invalidArgument, notFound } from '@flotilla/errors';

/**
 * Find an object as Docker does: by full id, by name, by a prefix of ids that only one object has.
 * @throws EngineError `invalidArgument` for a prefix that several ids have; `notFound` from `missing`
 */
export function resolveName<T>(
  wanted: string,
  objects: ReadonlyMap<string, T>,
  nameOf: (object: T) => string,
  missing: (wanted: string) => string,
): T {
  const byId = objects.get(wanted);
  if (byId !== undefined) return byId;
  for (const object of objects.values()) if (nameOf(object) === wanted) return object;
  if (/^[0-9a-f]{1,64}$/.test(wanted)) {
    const found: T[] = [];
    for (const [id, object] of objects) if (id.startsWith(wanted)) found.push(object);
    if (found.length > 1) throw invalidArgument(`Multiple IDs found with provided prefix: ${wanted}`);
    if (found[0] !== undefined) return found[0];
  }
  throw notFound(missing(wanted));
}
