/** How a collection's values become bytes. */
export interface Codec<T> {
  encode(value: T): Uint8Array;
  decode(bytes: Uint8Array): T;
}

/** What ts-proto generates for every message. */
export interface MessageFns<T> {
  encode(message: T): { finish(): Uint8Array };
  decode(input: Uint8Array): T;
}

/** JSON, for records that hold only what JSON holds (no bigint, Date, Map or bytes). */
export function jsonCodec<T>(): Codec<T> {
  return {
    encode: (value) => Buffer.from(JSON.stringify(value)),
    decode: (bytes) => JSON.parse(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString()) as T,
  };
}

/** JSON of which the reader needs more than that it is JSON: what is not `isWhole` is damaged, for the reason given. */
export function checkedJsonCodec<T>(isWhole: (value: unknown) => boolean, reason: string): Codec<T> {
  const json = jsonCodec<T>();
  return {
    encode: (value) => json.encode(value),
    decode(bytes) {
      const value = json.decode(bytes);
      if (!isWhole(value)) throw new Error(reason);
      return value;
    },
  };
}

/** Protobuf, by a generated message. Unknown fields are dropped when a record is rewritten. */
export function messageCodec<T>(message: MessageFns<T>): Codec<T> {
  return { encode: (value) => message.encode(value).finish(), decode: (bytes) => message.decode(bytes) };
}

/** A view of the same memory: no copy. */
export function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
