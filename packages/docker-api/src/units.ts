/** A duration in the rough words of `docker ps`: `5 seconds`, `About an hour`, `3 weeks`. Rules of docker/go-units. */
export function humanDuration(milliseconds: number): string {
  const seconds = Math.trunc(milliseconds / 1000);
  if (seconds < 1) return 'Less than a second';
  if (seconds === 1) return '1 second';
  if (seconds < 60) return `${seconds} seconds`;
  const minutes = Math.trunc(milliseconds / 60_000);
  if (minutes === 1) return 'About a minute';
  if (minutes < 60) return `${minutes} minutes`;
  const hours = Math.trunc(milliseconds / 3_600_000 + 0.5);
  if (hours === 1) return 'About an hour';
  if (hours < 48) return `${hours} hours`;
  if (hours < 24 * 7 * 2) return `${Math.trunc(hours / 24)} days`;
  if (hours < 24 * 30 * 2) return `${Math.trunc(hours / 24 / 7)} weeks`;
  if (hours < 24 * 365 * 2) return `${Math.trunc(hours / 24 / 30)} months`;
  return `${Math.trunc(Math.trunc(milliseconds / 3_600_000) / 24 / 365)} years`;
}

/**
 * How long the text of {@link humanDuration} stays true: milliseconds from now until it may read differently.
 * A lower bound: the text may be the same afterwards, it never changes before.
 */
export function humanDurationHolds(milliseconds: number): number {
  if (milliseconds < 60_000) return 1000 - (Math.max(milliseconds, 0) % 1000);
  if (milliseconds < 3_600_000) return 60_000 - (milliseconds % 60_000);
  return 1_800_000 - (milliseconds % 1_800_000);
}

const DECIMAL_SIZES = ['B', 'kB', 'MB', 'GB', 'TB', 'PB', 'EB', 'ZB', 'YB'];

/** A size in powers of 1000 with four significant digits: `3.623MB`. Rules of docker/go-units. */
export function humanSize(bytes: number): string {
  let size = bytes;
  let unit = 0;
  while (size >= 1000 && unit < DECIMAL_SIZES.length - 1) {
    size /= 1000;
    unit++;
  }
  return `${String(Number(size.toPrecision(4)))}${DECIMAL_SIZES[unit] ?? 'B'}`;
}
