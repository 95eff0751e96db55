import { invalidArgument } from '@flotilla/errors';

const decimalUnits: Readonly<Record<string, number>> = { '': 1, k: 1e3, m: 1e6, g: 1e9, t: 1e12, p: 1e15 };
const binaryUnits: Readonly<Record<string, number>> = {
  '': 1,
  k: 2 ** 10,
  m: 2 ** 20,
  g: 2 ** 30,
  t: 2 ** 40,
  p: 2 ** 50,
};
const durationUnits: Readonly<Record<string, number>> = {
  ns: 1e-6,
  us: 1e-3,
  µs: 1e-3,
  ms: 1,
  s: 1000,
  m: 60_000,
  h: 3_600_000,
};

/** As go-units FromHumanSize: `10m` is 10,000,000 bytes. @throws EngineError `invalidArgument`. */
export function humanBytes(text: string): number {
  return parseSize(text, decimalUnits);
}

/** As go-units RAMInBytes: `10m` is 10 MiB. @throws EngineError `invalidArgument`. */
export function ramBytes(text: string): number {
  return parseSize(text, binaryUnits);
}

function parseSize(text: string, units: Readonly<Record<string, number>>): number {
  const match = /^(\d+(?:\.\d+)?) ?([kmgtp]?)i?b?$/i.exec(text);
  const unit = units[(match?.[2] ?? '').toLowerCase()];
  const bytes = match === null || unit === undefined ? Number.NaN : Math.floor(Number(match[1]) * unit);
  if (!Number.isSafeInteger(bytes)) throw invalidArgument(`invalid size: '${text}'`);
  return bytes;
}

/** As strconv.ParseBool. @throws EngineError `invalidArgument`. */
export function parseBool(text: string): boolean {
  if (['1', 't', 'T', 'TRUE', 'true', 'True'].includes(text)) return true;
  if (['0', 'f', 'F', 'FALSE', 'false', 'False'].includes(text)) return false;
  throw invalidArgument(`strconv.ParseBool: parsing ${JSON.stringify(text)}: invalid syntax`);
}

/** As strconv.Atoi. @throws EngineError `invalidArgument`. */
export function parseInteger(text: string): number {
  const value = /^[+-]?\d{1,15}$/.test(text) ? Number(text) : Number.NaN;
  if (Number.isNaN(value)) {
    throw invalidArgument(`strconv.Atoi: parsing ${JSON.stringify(text)}: invalid syntax`);
  }
  return value;
}

/** As time.ParseDuration, in milliseconds; not negative. @throws EngineError `invalidArgument`. */
export function durationMs(text: string): number {
  if (text === '0') return 0;
  const parts = [...text.matchAll(/(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)/g)];
  if (parts.length === 0 || parts.map(([whole]) => whole).join('') !== text) {
    throw invalidArgument(`time: invalid duration ${JSON.stringify(text)}`);
  }
  return parts.reduce((sum, [, value, unit]) => sum + Number(value) * (durationUnits[unit ?? ''] ?? 0), 0);
}
