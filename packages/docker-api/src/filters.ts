import { invalidArgument } from '@flotilla/errors';

/** Parsed `filters` of a list, prune or events request: key to its values, in the order given, without doubles. */
export type Filters = ReadonlyMap<string, readonly string[]>;

/** A query without filters. */
export const NO_FILTERS: Filters = new Map();

/**
 * Parse the `filters` query value.
 *
 * Both forms count: `{"label":["a","b"]}` and the older `{"label":{"a":true,"b":true}}`.
 * @param accepted the keys that the endpoint knows; another key is refused. Left out, every key passes.
 * @throws EngineError `invalidArgument` with Docker's sentence.
 */
export function parseFilters(text: string | null | undefined, accepted?: ReadonlySet<string>): Filters {
  if (text === null || text === undefined || text === '') return NO_FILTERS;
  let raw: unknown;
  try {
    raw = JSON.parse(text);
  } catch (cause) {
    throw invalidArgument('invalid filter', { cause });
  }
  if (raw === null) return NO_FILTERS;
  if (typeof raw !== 'object' || Array.isArray(raw)) throw invalidArgument('invalid filter');
  const filters = new Map<string, readonly string[]>();
  for (const [key, value] of Object.entries(raw)) {
    if (accepted !== undefined && !accepted.has(key)) throw invalidArgument(`invalid filter '${key}'`);
    filters.set(key, filterValues(value));
  }
  return filters;
}

function filterValues(value: unknown): readonly string[] {
  if (value === null) return [];
  if (Array.isArray(value)) {
    if (!value.every((entry) => typeof entry === 'string')) throw invalidArgument('invalid filter');
    return [...new Set(value)];
  }
  if (typeof value === 'object') {
    const entries = Object.entries(value);
    if (!entries.every(([, set]) => typeof set === 'boolean')) throw invalidArgument('invalid filter');
    return entries.map(([key]) => key);
  }
  throw invalidArgument('invalid filter');
}

/** The sentence of dockerd for a value that a filter does not take. */
export const invalidFilterValue = (key: string, values: readonly string[]): Error =>
  invalidArgument(`invalid filter '${key}=[${values.join(' ')}]'`);

/**
 * A filter that is a yes/no question, such as `dangling`.
 * @returns undefined when the filter is absent.
 * @throws EngineError `invalidArgument` for another value, or for both answers at once.
 */
export function booleanFilter(filters: Filters, key: string): boolean | undefined {
  const values = filters.get(key);
  if (values === undefined || values.length === 0) return undefined;
  const isTrue = values.includes('1') || values.includes('true');
  const isFalse = values.includes('0') || values.includes('false');
  if (isTrue === isFalse) throw invalidFilterValue(key, values);
  return isTrue;
}

/** Whether a set of labels satisfies every `key` or `key=value` selector. */
export function matchLabels(
  selectors: readonly string[] | undefined,
  labels: Readonly<Record<string, string>>,
): boolean {
  if (selectors === undefined) return true;
  return selectors.every((selector) => {
    const at = selector.indexOf('=');
    if (at < 0) return Object.hasOwn(labels, selector);
    return labels[selector.slice(0, at)] === selector.slice(at + 1);
  });
}
