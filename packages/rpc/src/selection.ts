import type { Identity } from './identity.js';

/** Labels of an object, as its owner keeps them. */
export type Labels = Readonly<Record<string, string>> | ReadonlyMap<string, string>;

/** Whether the caller may see an object: its labels hold all that the identity asks for. */
export function isVisible(labels: Labels, { visibility }: Identity): boolean {
  return visibility === null || Object.entries(visibility).every(([key, value]) => valueOf(labels, key) === value);
}

/** Whether labels have all of `wanted` and none of `excluded`; each is `key` or `key=value`. */
export function matchesLabels(labels: Labels, wanted: readonly string[], excluded: readonly string[]): boolean {
  const has = (term: string): boolean => {
    const at = term.indexOf('=');
    const value = valueOf(labels, at === -1 ? term : term.slice(0, at));
    return value !== undefined && (at === -1 || value === term.slice(at + 1));
  };
  return wanted.every(has) && !excluded.some(has);
}

function valueOf(labels: Labels, key: string): string | undefined {
  if (labels instanceof Map) return (labels as ReadonlyMap<string, string>).get(key);
  return Object.hasOwn(labels, key) ? (labels as Readonly<Record<string, string>>)[key] : undefined;
}
