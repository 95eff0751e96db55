/** Whether labels have all of `wanted` and none of `excluded`; each `key` or `key=value`. */
export function matchesLabels(
  labels: Readonly<Record<string, string>>,
  wanted: readonly string[],
  excluded: readonly string[],
): boolean {
  const has = (term: string): boolean => {
    const at = term.indexOf('=');
    return at < 0 ? Object.hasOwn(labels, term) : labels[term.slice(0, at)] === term.slice(at + 1);
  };
  return wanted.every(has) && !excluded.some(has);
}
