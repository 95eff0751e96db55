import { isDeepStrictEqual } from 'node:util';
import type { DaemonFile } from './daemon-keys.js';
import type { DaemonSettings } from './daemon-settings.js';

/** Keys of daemon.json that change with a reload; the others count from the next start. */
const reloadableKeys = [
  'registry-mirrors',
  'insecure-registries',
  'max-concurrent-downloads',
  'max-concurrent-uploads',
  'max-download-attempts',
  'proxies',
  'registry-cache-size',
] as const satisfies readonly (keyof DaemonFile)[];

/** What a running engine goes on with after a reload: its settings with what may change of `fresh`, and which other keys wait. */
export function reloadedSettings(
  running: DaemonSettings,
  fresh: DaemonSettings,
): { readonly settings: DaemonSettings; readonly waiting: readonly string[] } {
  const isReloadable = (key: string): boolean => reloadableKeys.some((each) => each === key);
  const pick = (given: DaemonFile, wanted: (key: string) => boolean): Partial<DaemonFile> =>
    Object.fromEntries(Object.entries(given).filter(([key]) => wanted(key)));
  const keys = [...new Set([...Object.keys(running.given), ...Object.keys(fresh.given)])];
  const before = new Map(Object.entries(running.given));
  const after = new Map(Object.entries(fresh.given));
  const waiting = keys.filter((key) => !isReloadable(key) && !isDeepStrictEqual(before.get(key), after.get(key)));
  const given = { ...pick(running.given, (key) => !isReloadable(key)), ...pick(fresh.given, isReloadable) };
  return { settings: { ...running, given }, waiting };
}
