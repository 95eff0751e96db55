import { invalidArgument } from '@flotilla/errors';

/** A JSON object from outside. */
export type JsonObject = Readonly<Record<string, unknown>>;

/**
 * Typed reads from JSON of unknown origin. As Go's decoder has it, `null` and an absent key are the zero value; a wrong
 * type is `invalidArgument` naming the document and the key.
 */
export class JsonReader {
  readonly #document: string;

  constructor(document: string) {
    this.#document = document;
  }

  parse(bytes: Uint8Array | string): JsonObject {
    let value: unknown;
    try {
      value = JSON.parse(typeof bytes === 'string' ? bytes : new TextDecoder('utf-8').decode(bytes));
    } catch (cause) {
      throw invalidArgument(`invalid ${this.#document}: not valid JSON`, { cause });
    }
    return this.asObject(value, '') ?? this.#fail('', 'an object');
  }

  object(parent: JsonObject, key: string): JsonObject | undefined {
    return this.asObject(own(parent, key), key);
  }

  string(parent: JsonObject, key: string): string {
    const value = own(parent, key) ?? '';
    return typeof value === 'string' ? value : this.#fail(key, 'a string');
  }

  /** A whole number that is not negative. */
  size(parent: JsonObject, key: string): number {
    const value = own(parent, key) ?? 0;
    return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0
      ? value
      : this.#fail(key, 'a size in bytes');
  }

  integer(parent: JsonObject, key: string): number {
    const value = own(parent, key) ?? 0;
    return typeof value === 'number' && Number.isSafeInteger(value) ? value : this.#fail(key, 'a whole number');
  }

  boolean(parent: JsonObject, key: string): boolean {
    const value = own(parent, key) ?? false;
    return typeof value === 'boolean' ? value : this.#fail(key, 'true or false');
  }

  /** undefined where the key is absent or null. */
  strings(parent: JsonObject, key: string): string[] | undefined {
    const value = own(parent, key) ?? undefined;
    if (value === undefined) return undefined;
    if (!Array.isArray(value)) return this.#fail(key, 'a list of strings');
    return value.map((item: unknown) => (typeof item === 'string' ? item : this.#fail(key, 'a list of strings')));
  }

  objects(parent: JsonObject, key: string): JsonObject[] {
    const value = own(parent, key) ?? [];
    if (!Array.isArray(value)) return this.#fail(key, 'a list of objects');
    return value.map((item: unknown) => this.asObject(item, key) ?? this.#fail(key, 'a list of objects'));
  }

  /** The keys of an object used as a set, e.g. `ExposedPorts`. */
  keys(parent: JsonObject, key: string): string[] {
    return Object.keys(this.object(parent, key) ?? {});
  }

  map(parent: JsonObject, key: string): Map<string, string> {
    const result = new Map<string, string>();
    for (const [name, value] of Object.entries(this.object(parent, key) ?? {})) {
      result.set(name, typeof value === 'string' ? value : this.#fail(key, 'an object of strings'));
    }
    return result;
  }

  asObject(value: unknown, key: string): JsonObject | undefined {
    if (value === undefined || value === null) return undefined;
    if (typeof value !== 'object' || Array.isArray(value)) return this.#fail(key, 'an object');
    return value as JsonObject;
  }

  #fail(key: string, expected: string): never {
    throw invalidArgument(`invalid ${this.#document}: ${key === '' ? 'it' : key} must be ${expected}`);
  }
}

function own(parent: JsonObject, key: string): unknown {
  return Object.hasOwn(parent, key) ? parent[key] : undefined;
}
