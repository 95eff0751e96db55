import type { Descriptor, HealthConfig, Platform } from '@flotilla/docker-api';
import type { common } from '@flotilla/proto';

/** A list as Go prints a slice that was never set: `null` instead of empty. */
export const listOrNull = <T>(list: readonly T[]): T[] | null => (list.length === 0 ? null : [...list]);

/** A map as Go prints one that was never set. */
export const mapOrNull = (map: Readonly<Record<string, string>>): Record<string, string> | null =>
  Object.keys(map).length === 0 ? null : { ...map };

/** A set in Docker's JSON: names as keys of empty objects. */
export const setOf = (names: readonly string[]): Record<string, Record<string, never>> =>
  Object.fromEntries(names.map((name) => [name, {}]));

/** A platform as the API shows it. */
export const platformShape = (platform: common.Platform): Platform => ({
  architecture: platform.architecture,
  os: platform.os,
  ...(platform.osVersion === '' ? {} : { 'os.version': platform.osVersion }),
  ...(platform.osFeatures.length === 0 ? {} : { 'os.features': platform.osFeatures }),
  ...(platform.variant === '' ? {} : { variant: platform.variant }),
});

/** A descriptor as the API shows it. */
export const descriptorShape = (descriptor: common.Descriptor): Descriptor => ({
  mediaType: descriptor.mediaType,
  digest: descriptor.digest,
  size: Number(descriptor.sizeBytes),
  ...(descriptor.urls.length === 0 ? {} : { urls: descriptor.urls }),
  ...(Object.keys(descriptor.annotations).length === 0 ? {} : { annotations: descriptor.annotations }),
  ...(descriptor.platform === undefined ? {} : { platform: platformShape(descriptor.platform) }),
});

/** A health check as the API shows it: zero values are left out. */
export const healthConfigShape = (check: common.Healthcheck): HealthConfig => ({
  ...(check.test.length === 0 ? {} : { Test: check.test }),
  ...(check.intervalNs === 0n ? {} : { Interval: Number(check.intervalNs) }),
  ...(check.timeoutNs === 0n ? {} : { Timeout: Number(check.timeoutNs) }),
  ...(check.startPeriodNs === 0n ? {} : { StartPeriod: Number(check.startPeriodNs) }),
  ...(check.startIntervalNs === 0n ? {} : { StartInterval: Number(check.startIntervalNs) }),
  ...(check.retries === 0n ? {} : { Retries: Number(check.retries) }),
});

/** Seconds since the epoch, 0 when absent. */
export const unixSeconds = (timestamp: { seconds: bigint } | undefined): number => Number(timestamp?.seconds ?? 0n);
