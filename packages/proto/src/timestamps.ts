import type { Timestamp } from './generated/google/protobuf/timestamp.js';

const NS_PER_SECOND = 1_000_000_000n;

/** Timestamp of `ns` nanoseconds since the epoch (negative before 1970, nanos always 0..999999999). */
export function timestampFromNs(ns: bigint): Timestamp {
  const nanos = ((ns % NS_PER_SECOND) + NS_PER_SECOND) % NS_PER_SECOND;
  return { seconds: (ns - nanos) / NS_PER_SECOND, nanos: Number(nanos) };
}

/** Nanoseconds since the epoch. */
export function timestampToNs(timestamp: Timestamp): bigint {
  return timestamp.seconds * NS_PER_SECOND + BigInt(timestamp.nanos);
}

/** Timestamp with a Date's millisecond precision. */
export function timestampFromDate(date: Date): Timestamp {
  return timestampFromNs(BigInt(date.getTime()) * 1_000_000n);
}

/** Date of a timestamp; what is below a millisecond is cut off. */
export function timestampToDate(timestamp: Timestamp): Date {
  return new Date(Number(timestamp.seconds) * 1000 + Math.floor(timestamp.nanos / 1_000_000));
}

/**
 * Text as Go's time.RFC3339Nano writes it in UTC: trailing zeros of the fraction dropped, no fraction when zero.
 * An absent timestamp gives Go's zero time, as Docker shows times that never were.
 */
export function timestampToRfc3339Nano(timestamp: Timestamp | undefined): string {
  if (timestamp === undefined) return '0001-01-01T00:00:00Z';
  const whole = new Date(Number(timestamp.seconds) * 1000).toISOString().slice(0, 19);
  if (timestamp.nanos === 0) return `${whole}Z`;
  return `${whole}.${String(timestamp.nanos).padStart(9, '0').replace(/0+$/, '')}Z`;
}
