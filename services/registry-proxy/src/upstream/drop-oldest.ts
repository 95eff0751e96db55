/** Take the entry that was set first out of a map with more than `most`. @returns its value */
export function dropOldest<T>(map: Map<string, T>, most: number): T | undefined {
  if (map.size <= most) return undefined;
  for (const [key, value] of map) {
    map.delete(key);
    return value;
  }
  return undefined;
}
