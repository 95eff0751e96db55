import { invalidArgument } from '@flotilla/errors';

/** Go's phrase for a header that cannot be understood, which Docker's messages carry. */
export const invalidHeader = (detail: string) => invalidArgument(`archive/tar: invalid tar header: ${detail}`);

/** A number field: octal digits between spaces and NULs (none at all is 0), or base 256 when the top bit is set. */
export function parseNumber(block: Buffer, offset: number, length: number): number {
  const first = block[offset] ?? 0;
  return (first & 0x80) === 0 ? parseOctal(block, offset, length) : parseBase256(block, offset, length);
}

function parseOctal(block: Buffer, offset: number, length: number): number {
  const isBlank = (index: number) => block[index] === 0x20 || block[index] === 0;
  let start = offset;
  let end = offset + length;
  while (start < end && isBlank(start)) start++;
  while (end > start && isBlank(end - 1)) end--;
  let value = 0;
  for (let index = start; index < end; index++) {
    const digit = (block[index] ?? 0) - 0x30;
    if (digit < 0 || digit > 7) throw invalidHeader('invalid octal number');
    value = value * 8 + digit;
  }
  return value;
}

function parseBase256(block: Buffer, offset: number, length: number): number {
  const negative = ((block[offset] ?? 0) & 0x40) !== 0;
  let value = BigInt((block[offset] ?? 0) & 0x7f);
  for (let index = offset + 1; index < offset + length; index++) value = (value << 8n) | BigInt(block[index] ?? 0);
  if (negative) value -= 1n << BigInt(length * 8 - 1);
  return safeNumber(value);
}

function safeNumber(value: bigint): number {
  const number = Number(value);
  if (!Number.isSafeInteger(number)) throw invalidHeader('number out of range');
  return number;
}

/** A decimal number of a PAX record; signed. */
export function parseDecimal(text: string): number {
  if (!/^-?\d{1,20}$/.test(text)) throw invalidHeader('invalid number in PAX record');
  return safeNumber(BigInt(text));
}

/** A size, offset or count: as `parseDecimal`, not negative. */
export function parseCount(text: string): number {
  const value = parseDecimal(text);
  if (value < 0) throw invalidHeader('negative number in PAX record');
  return value;
}

/** A uid or gid: 32 bits; archives carry -2 for nobody. */
export function userId(value: number): number {
  if (value < -0x80000000 || value > 0xffffffff) throw invalidHeader('user or group id out of range');
  return value >>> 0;
}

/** Seconds with an optional fraction, cut at nanoseconds; negative before 1970. */
export function parsePaxTime(text: string): { seconds: number; nanoseconds: number } {
  const match = /^(-?)(\d{1,16})(?:\.(\d*))?$/.exec(text);
  if (match === null) throw invalidHeader('invalid time in PAX record');
  const whole = parseDecimal(match[2] ?? '0');
  const fraction = Number((match[3] ?? '').padEnd(9, '0').slice(0, 9));
  if (match[1] !== '-') return { seconds: whole, nanoseconds: fraction };
  return fraction === 0
    ? { seconds: whole === 0 ? 0 : -whole, nanoseconds: 0 }
    : { seconds: -whole - 1, nanoseconds: 1_000_000_000 - fraction };
}
