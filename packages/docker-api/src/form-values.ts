import { invalidArgument } from '@flotilla/errors';

const FALSE_WORDS = new Set(['', '0', 'no', 'false', 'none']);

/** A boolean of the query string by Docker's loose rule: everything but empty, `0`, `no`, `false` and `none` is true. */
export const booleanValue = (value: string | null | undefined): boolean =>
  value !== null && value !== undefined && !FALSE_WORDS.has(value.trim().toLowerCase());

/** As {@link booleanValue}, with the answer for a value that is absent. */
export const booleanValueOr = (value: string | null | undefined, absent: boolean): boolean =>
  value === null || value === undefined ? absent : booleanValue(value);

/**
 * A decimal integer of the query string.
 * @returns undefined when the value is absent or empty.
 * @throws EngineError `invalidArgument` in the words of Go's strconv, which is what dockerd answers.
 */
export function integerValue(value: string | null | undefined): number | undefined {
  if (value === null || value === undefined || value === '') return undefined;
  if (!/^[+-]?\d+$/.test(value))
    throw invalidArgument(`strconv.Atoi: parsing ${JSON.stringify(value)}: invalid syntax`);
  const number = Number(value);
  if (!Number.isSafeInteger(number))
    throw invalidArgument(`strconv.Atoi: parsing ${JSON.stringify(value)}: value out of range`);
  return number;
}
