import { invalidArgument } from '@flotilla/errors';

const NANOS_PER_SECOND = 1_000_000_000n;
const DURATION_UNITS: Readonly<Record<string, number>> = {
  ns: 1,
  us: 1e3,
  µs: 1e3,
  μs: 1e3,
  ms: 1e6,
  s: 1e9,
  m: 60e9,
  h: 3600e9,
};

/**
 * Parse a Go duration such as `1h30m`, `1.5s` or `-300ms`.
 * @returns nanoseconds, or undefined when the text is no duration.
 */
export function parseGoDuration(text: string): bigint | undefined {
  const match = /^([+-]?)((?:\d+(?:\.\d*)?|\.\d+)(?:ns|us|µs|μs|ms|s|m|h))+$/.exec(text);
  if (match === null) return text === '0' ? 0n : undefined;
  let total = 0n;
  for (const part of text.matchAll(/(\d*)(?:\.(\d*))?(ns|us|µs|μs|ms|s|m|h)/g)) {
    const unit = BigInt(DURATION_UNITS[part[3] ?? 'ns'] ?? 1);
    const fraction = (part[2] ?? '').slice(0, 9);
    total += BigInt(part[1] === '' || part[1] === undefined ? '0' : part[1]) * unit;
    if (fraction !== '') total += (BigInt(fraction) * unit) / 10n ** BigInt(fraction.length);
  }
  return match[1] === '-' ? -total : total;
}

/**
 * Parse a point in time of the query string: seconds since the epoch with an optional fraction of up to nine digits,
 * an RFC 3339 time (also without zone, which then is the machine's, without seconds, or a date alone), or a Go duration
 * that counts back from `now`.
 *
 * @param now nanoseconds since the epoch
 * @returns nanoseconds since the epoch, or undefined when the value is absent or empty
 * @throws EngineError `invalidArgument` when the text is none of these
 */
export function parseTimestamp(text: string | null | undefined, now: bigint): bigint | undefined {
  if (text === null || text === undefined || text === '') return undefined;
  const unix = /^(-?)(\d{1,18})(?:\.(\d{0,9})\d*)?$/.exec(text);
  if (unix !== null) {
    const nanos = BigInt(unix[2] ?? '0') * NANOS_PER_SECOND + BigInt((unix[3] ?? '').padEnd(9, '0'));
    return unix[1] === '-' ? -nanos : nanos;
  }
  const date = /^(\d{4}-\d\d-\d\d)(?:T(\d\d:\d\d)(:\d\d)?(?:\.(\d{1,9})\d*)?)?(Z|[+-]\d\d:?\d\d)?$/i.exec(text);
  if (date !== null) {
    const zone =
      date[5] === undefined
        ? ''
        : date[5].length === 5
          ? `${date[5].slice(0, 3)}:${date[5].slice(3)}`
          : date[5].toUpperCase();
    const millis = Date.parse(`${date[1] ?? ''}T${date[2] ?? '00:00'}${date[3] ?? ':00'}${zone}`);
    if (!Number.isNaN(millis)) return BigInt(millis) * 1_000_000n + BigInt((date[4] ?? '').padEnd(9, '0'));
  }
  const duration = parseGoDuration(text);
  if (duration !== undefined) return now - duration;
  throw invalidArgument(
    `invalid value for timestamp: ${JSON.stringify(text)} is not a time, a number of seconds or a duration`,
  );
}
