import { invalidArgument } from '@flotilla/errors';
import { describeJsonError } from './syntax-error.js';

/**
 * Where in a document a value stands, for the sentence that names it. `struct` is the Go name of the innermost object,
 * `fields` the path from the root: dockerd's sentences name both.
 */
export interface Place {
  readonly struct: string;
  readonly fields: readonly string[];
}

/**
 * Checks one JSON value and hands it on typed. `null` never gets here: like in Go it means "as if absent".
 * @throws EngineError `invalidArgument` in the words of Go's encoding/json
 */
export type Decoder<T> = (value: unknown, place: Place) => T;

/** What a decoder makes. */
export type Decoded<D> = D extends Decoder<infer T> ? T : never;

type Fields = Readonly<Record<string, Decoder<unknown>>>;
type DecodedFields<F extends Fields> = { [K in keyof F]?: Decoded<F[K]> };

const ROOT: Place = { struct: '', fields: [] };

const kindOf = (value: unknown): string => {
  if (Array.isArray(value)) return 'array';
  if (typeof value === 'boolean') return 'bool';
  return typeof value;
};

const mismatch = (value: unknown, place: Place, goType: string, kind = kindOf(value)): Error => {
  const target =
    place.struct === '' && place.fields.length === 0
      ? 'value'
      : `struct field ${place.struct}.${place.fields.join('.')}`;
  return invalidArgument(`invalid JSON: json: cannot unmarshal ${kind} into Go ${target} of type ${goType}`);
};

/** A string. */
export const string: Decoder<string> = (value, place) => {
  if (typeof value !== 'string') throw mismatch(value, place, 'string');
  return value;
};

/** A boolean: only `true` and `false`. */
export const boolean: Decoder<boolean> = (value, place) => {
  if (typeof value !== 'boolean') throw mismatch(value, place, 'bool');
  return value;
};

const integer =
  (goType: string, min: number, max: number): Decoder<number> =>
  (value, place) => {
    if (typeof value !== 'number') throw mismatch(value, place, goType);
    if (!Number.isInteger(value) || value < min || value > max)
      throw mismatch(value, place, goType, `number ${String(value)}`);
    return value;
  };

/** Go's `int`, kept in 32 bits as the contracts have it. */
export const int = integer('int', -(2 ** 31), 2 ** 31 - 1);
/** Go's `uint`. */
export const uint = integer('uint', 0, 2 ** 32 - 1);
/** Go's `uint16`. */
export const uint16 = integer('uint16', 0, 2 ** 16 - 1);
/** Go's `uint32`, as file modes. */
export const uint32 = integer('uint32', 0, 2 ** 32 - 1);

const MAX_INT64 = 2n ** 63n - 1n;

/** Go's `int64`. Numbers beyond 2^53 lose their last digits in JSON.parse; 2^63 is cut to the largest value. */
export const int64: Decoder<bigint> = (value, place) => {
  const number = integer('int64', -(2 ** 63), 2 ** 63)(value, place);
  const big = BigInt(number);
  return big > MAX_INT64 ? MAX_INT64 : big;
};

/** Go's `uint64`. */
export const uint64: Decoder<bigint> = (value, place) => BigInt(integer('uint64', 0, 2 ** 64 - 2048)(value, place));

/** Any JSON object, contents unseen. */
export const anything: Decoder<unknown> = (value) => value;

/** A list; `null` entries become what `absent` says, or are left out. */
export const arrayOf =
  <T>(entry: Decoder<T>, goType: string, absent?: T): Decoder<T[]> =>
  (value, place) => {
    if (!Array.isArray(value)) throw mismatch(value, place, goType);
    const list: T[] = [];
    for (const item of value as unknown[]) {
      if (item !== null) list.push(entry(item, place));
      else if (absent !== undefined) list.push(absent);
    }
    return list;
  };

/** A list of strings. */
export const strings: Decoder<string[]> = arrayOf(string, '[]string', '');

/** Docker's `strslice.StrSlice`: a list of strings, or one string. */
export const stringOrStrings: Decoder<string[]> = (value, place) => {
  if (Array.isArray(value) && value.every((item) => typeof item === 'string' || item === null))
    return strings(value, place);
  if (typeof value === 'string') return [value];
  throw mismatch(value, ROOT, 'string');
};

/** An object used as a map. */
export const mapOf =
  <T>(entry: Decoder<T>, goType: string, absent?: T): Decoder<Map<string, T>> =>
  (value, place) => {
    if (!isObject(value)) throw mismatch(value, place, goType);
    const map = new Map<string, T>();
    for (const [key, item] of Object.entries(value)) {
      if (item !== null) map.set(key, entry(item, place));
      else if (absent !== undefined) map.set(key, absent);
    }
    return map;
  };

/** A map of strings. */
export const stringMap: Decoder<Map<string, string>> = mapOf(string, 'map[string]string', '');

/** An object with known fields. Field names match in any case, as in Go; unknown ones are ignored, as in dockerd. */
export const struct = <F extends Fields>(name: string, fields: F): Decoder<DecodedFields<F>> => {
  const byLowerCase = new Map(Object.keys(fields).map((key) => [key.toLowerCase(), key]));
  return (value, place) => {
    if (!isObject(value)) throw mismatch(value, place, goTypeName(name));
    const result: Record<string, unknown> = {};
    for (const [key, item] of Object.entries(value)) {
      if (item === null) continue;
      const field = Object.hasOwn(fields, key) ? key : byLowerCase.get(key.toLowerCase());
      if (field === undefined) continue;
      result[field] = fields[field]?.(item, { struct: name, fields: [...place.fields, field] });
    }
    return result as DecodedFields<F>;
  };
};

const PACKAGES: Readonly<Record<string, string>> = {
  IPAM: 'network.IPAM',
  IPAMConfig: 'network.IPAMConfig',
  EndpointSettings: 'network.EndpointSettings',
  NetworkingConfig: 'network.NetworkingConfig',
  EndpointIPAMConfig: 'network.EndpointIPAMConfig',
  ConfigReference: 'network.ConfigReference',
  PortBinding: 'nat.PortBinding',
  Mount: 'mount.Mount',
  BindOptions: 'mount.BindOptions',
  VolumeOptions: 'mount.VolumeOptions',
  TmpfsOptions: 'mount.TmpfsOptions',
  ImageOptions: 'mount.ImageOptions',
  Driver: 'mount.Driver',
  CreateOptions: 'volume.CreateOptions',
  CreateRequest: 'container.CreateRequest',
};
const goTypeName = (name: string): string => PACKAGES[name] ?? `container.${name}`;

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/**
 * Read a request body.
 * @returns undefined for `null`
 * @throws EngineError `invalidArgument` with dockerd's sentence for a text that is no JSON or has wrong types
 */
export function decodeJson<T>(text: string, decoder: Decoder<T>): T | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    const failure = describeJsonError(text);
    if (failure.reason === 'empty')
      throw invalidArgument('invalid JSON: got EOF while reading request body', { cause });
    if (failure.reason === 'syntax') throw invalidArgument(`invalid JSON: ${failure.message}`, { cause });
    throw invalidArgument('unexpected content after JSON', { cause });
  }
  return value === null ? undefined : decoder(value, ROOT);
}
